//! STATUS: would an ADD succeed?

use crate::agent::Agent;
use crate::env::Command;
use crate::error::Error;
use crate::ipam::Delegate;
use crate::types::Version;
use crate::verb::Call;

/// Fails with code 50, or 51 when attached pods are cut off as well.
pub(crate) fn run(call: &Call<'_>) -> Result<(), Error> {
    call.since(Version::V1_1_0)?;
    let not_available = |e: Error| Error::NotAvailable(vec![e.to_string()]);
    let mut agent = Agent::connect(&call.run_dir()).map_err(not_available)?;
    let ready = agent.ready().map_err(not_available)?;
    if !ready.problems.is_empty() {
        let dataplane = agent.status().map_or(true, |status| status.dataplane);
        return Err(if dataplane {
            Error::NotAvailable(ready.problems)
        } else {
            Error::LimitedConnectivity(ready.problems)
        });
    }
    let delegate = Delegate::find(call.conf, call.env).map_err(not_available)?;
    delegate.map_or(Ok(()), |d| d.call_if_known(Command::Status))
}
