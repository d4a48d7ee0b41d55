//! Calls of `agent.sock`.

use std::io;
use std::path::Path;
use std::time::Duration;

use weft_api::agent::{AgentStatus, Attachment, Checked, Collected, Op, Plan, Prepare, Ready};
use weft_api::client::{Client, ClientError};
use weft_api::dataplane::Done;
use weft_api::paths::RunDir;

use crate::error::Error;

/// Longest wait for one answer. The agent waits up to 5 s for a pod it does not know yet, and a
/// burst of 200 ADDs binds its sockets one after the other at up to 25 ms each; a runtime gives up
/// after minutes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to the agent.
pub(crate) struct Agent(Client);

impl Agent {
    /// Connects; an agent that is not there is a passing condition.
    pub(crate) fn connect(run_dir: &Path) -> Result<Self, Error> {
        Ok(Self(Self::open(run_dir)?))
    }

    /// Connects, or gives none when there is no agent to talk to.
    pub(crate) fn connect_if_there(run_dir: &Path) -> Result<Option<Self>, Error> {
        match Self::open(run_dir) {
            Err(ClientError::Connect { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(None)
            }
            other => Ok(Some(Self(other?))),
        }
    }

    fn open(run_dir: &Path) -> Result<Client, ClientError> {
        let socket = RunDir::new(run_dir).agent_socket();
        Client::connect("weft-agent", &socket, ANSWER_TIMEOUT)
    }

    /// Allocates and plans.
    pub(crate) fn prepare(&mut self, request: Prepare) -> Result<Plan, Error> {
        Ok(self.0.call(Op::Prepare(request))?)
    }

    /// Makes the port live.
    pub(crate) fn attach(&mut self, attachment: Attachment) -> Result<(), Error> {
        let Done {} = self.0.call(Op::Attach { attachment })?;
        Ok(())
    }

    /// Detaches and releases.
    pub(crate) fn release(&mut self, attachment: Attachment) -> Result<(), Error> {
        let Done {} = self.0.call(Op::Release { attachment })?;
        Ok(())
    }

    /// What agent and dataplane know of the attachment.
    pub(crate) fn check(&mut self, attachment: Attachment) -> Result<Checked, Error> {
        Ok(self.0.call(Op::Check { attachment })?)
    }

    /// Releases everything of `network` that is not in `valid`.
    pub(crate) fn collect(
        &mut self,
        network: String,
        valid: Vec<Attachment>,
    ) -> Result<Collected, Error> {
        Ok(self.0.call(Op::Collect { network, valid })?)
    }

    /// Ready for ADD?
    pub(crate) fn ready(&mut self) -> Result<Ready, Error> {
        Ok(self.0.call(Op::Ready)?)
    }

    /// The agent's state.
    pub(crate) fn status(&mut self) -> Result<AgentStatus, Error> {
        Ok(self.0.call(Op::Status)?)
    }
}
