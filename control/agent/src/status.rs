//! The agent's state for people.

use weft_api::agent::AgentStatus;

use crate::state::{Agent, lock};

impl Agent {
    /// The whole state for people.
    pub fn status(&self) -> AgentStatus {
        let generation = self.watch_progress().borrow().generation;
        let (attachments, pools) = {
            let attachments = lock(&self.attachments);
            (attachments.status(), attachments.pools())
        };
        AgentStatus {
            node: self.options().cluster.node.clone(),
            generation: generation.unwrap_or(0),
            dataplane: self.dataplane().connection().is_some(),
            attachments,
            pools,
            services: self.desired().services.services.len(),
            problems: self.problems(),
        }
    }
}
