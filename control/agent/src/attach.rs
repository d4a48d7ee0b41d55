//! What the CNI plugin asks for: attachments come and go.

use weft_api::agent::{Attachment, Checked, Collected, Plan, Prepare};
use weft_api::envelope::{ApiError, ErrorKind};

use crate::state::Agent;

impl Agent {
    /// Allocates addresses and plans an attachment; the same request gives the same plan.
    ///
    /// # Errors
    /// TryAgain for a pod nobody knows and while the agent is not ready, Exhausted without a free
    /// address, Conflict for a delegated address in use.
    pub async fn prepare(&self, request: &Prepare) -> Result<Plan, ApiError> {
        let _ = request;
        Err(ApiError::new(ErrorKind::TryAgain, "not ready"))
    }

    /// Makes a prepared attachment's port live.
    ///
    /// # Errors
    /// NotFound when it was not prepared, else the dataplane's.
    pub async fn attach(&self, attachment: &Attachment) -> Result<(), ApiError> {
        let _ = attachment;
        Ok(())
    }

    /// The plugin went away between prepare and attach: releases what never became live.
    pub async fn abandon(&self, attachment: &Attachment) {
        let _ = attachment;
    }

    /// Detaches and releases; an unknown attachment is success.
    ///
    /// # Errors
    /// The dataplane's.
    pub async fn release(&self, attachment: &Attachment) -> Result<(), ApiError> {
        let _ = attachment;
        Ok(())
    }

    /// Compares an attachment with what agent and dataplane know.
    pub async fn check(&self, attachment: &Attachment) -> Checked {
        let _ = attachment;
        Checked::default()
    }

    /// Releases every attachment of `network` that is not among `valid`.
    pub async fn collect(&self, network: &str, valid: &[Attachment]) -> Collected {
        let _ = (network, valid);
        Collected::default()
    }
}
