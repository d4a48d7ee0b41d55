//! One file per command of the specification.

pub(crate) mod add;
pub(crate) mod check;
pub(crate) mod del;
pub(crate) mod gc;
pub(crate) mod status;
pub(crate) mod version;

use std::path::PathBuf;

use weft_api::agent::Attachment;

use crate::env::Environment;
use crate::error::Error;
use crate::types::{NetConf, Version};

/// One call: where and about what.
pub(crate) struct Call<'a> {
    pub(crate) conf: &'a NetConf,
    pub(crate) env: &'a Environment,
}

impl Call<'_> {
    pub(crate) fn run_dir(&self) -> PathBuf {
        self.conf.run_dir(self.env.run_dir.as_ref())
    }

    pub(crate) fn attachment(&self) -> Attachment {
        Attachment {
            network: self.conf.name.clone(),
            container_id: self.env.container_id.clone(),
            ifname: self.env.ifname.clone(),
        }
    }

    /// Refuses a command older versions of the specification do not have.
    pub(crate) fn since(&self, version: Version) -> Result<(), Error> {
        if self.conf.version >= version {
            return Ok(());
        }
        Err(Error::IncompatibleVersion(format!(
            "{} exists since CNI version {}; the configuration speaks {}",
            self.env.command.as_str(),
            version.as_str(),
            self.conf.version.as_str()
        )))
    }
}
