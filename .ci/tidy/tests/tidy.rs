//! The rules, applied to this repository.

use std::path::Path;

use weft_tidy::tree::{self, File};
use weft_tidy::{calls, crates, exceptions, size, words};

#[test]
fn the_tree_keeps_the_house_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let files = tree::read(&root).unwrap();
    assert!(files.len() > 200, "only {} files", files.len());
    let of = |path: &str| {
        let file = files.iter().find(|file| file.path == path);
        file.unwrap_or_else(|| panic!("no {path}")).text.as_str()
    };
    let is_manifest = |file: &&File| file.path.ends_with("/Cargo.toml");
    let manifests: Vec<File> = files.iter().filter(is_manifest).cloned().collect();
    let mut findings = crates::check(of("ARCHITECTURE.md"), &manifests);
    for file in &files {
        findings.extend(size::check(file));
        findings.extend(calls::check(file));
        findings.extend(words::check(file));
    }
    let wrong = exceptions::judge(&findings, of(".ci/tidy/exceptions.txt"));
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}
