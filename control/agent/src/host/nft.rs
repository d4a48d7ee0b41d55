//! Loads rulesets with `nft`, each a transaction of its own.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use super::HostError;

/// 10,000 service addresses load in a fraction of a second; `nft` that takes this long waits for a
/// lock that is never given back.
const NFT_TIMEOUT: Duration = Duration::from_secs(10);

/// Loads `script`, which is there to do `what`.
pub(super) async fn load(what: &'static str, script: &str) -> Result<(), HostError> {
    let failed = |said: String| HostError::Nft { what, said };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => HostError::NftMissing { what },
            _ => failed(format!("nft cannot be started: {error}")),
        })?;
    let stdin = child.stdin.take();
    let run = async {
        if let Some(mut stdin) = stdin {
            // A child that gave up says why on stderr; its broken pipe says nothing more.
            let _ = stdin.write_all(script.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(NFT_TIMEOUT, run)
        .await
        .map_err(|_| failed(format!("nft did not end within {NFT_TIMEOUT:?}")))?
        .map_err(|error| failed(format!("nft: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(failed(format!("nft: {}", said.trim())))
}
