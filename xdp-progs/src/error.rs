use std::io;
use std::path::PathBuf;

use crate::{Program, XdpMode};

/// What can go wrong between us and the kernel's BPF.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An object was refused by libbpf or the verifier.
    #[error("cannot load the {program} program: {source}")]
    Load {
        /// Which one.
        program: &'static str,
        /// libbpf's reason.
        source: libbpf_rs::Error,
    },
    /// The embedded object lacks something this crate relies on.
    #[error("the {program} object holds no {what}")]
    Incomplete {
        /// Which object.
        program: &'static str,
        /// Name of the program or map.
        what: &'static str,
    },
    /// A map operation failed.
    #[error("cannot {doing}: {source}")]
    Map {
        /// What was being done to which entry.
        doing: String,
        /// libbpf's reason.
        source: libbpf_rs::Error,
    },
    /// The kernel refused to attach a program.
    #[error(
        "cannot attach the {program:?} program to interface {ifindex} in {mode} mode: {source}"
    )]
    Attach {
        /// Which program.
        program: Program,
        /// Interface index.
        ifindex: u32,
        /// Mode asked for.
        mode: XdpMode,
        /// EBUSY: another XDP program is there. EOPNOTSUPP: no such mode.
        source: io::Error,
    },
    /// The kernel refused to attach a program of shortcuts.
    #[error("cannot attach the {program:?} program to interface {ifindex}: {source}")]
    AttachShortcut {
        /// Which program.
        program: Program,
        /// Interface index.
        ifindex: u32,
        /// libbpf's reason.
        source: libbpf_rs::Error,
    },
    /// A program of shortcuts could not be taken away.
    #[error("cannot detach a program of shortcuts: {source}")]
    DetachShortcut {
        /// libbpf's reason.
        source: libbpf_rs::Error,
    },
    /// A descriptor could not be duplicated.
    #[error("cannot duplicate a program's descriptor: {0}")]
    Descriptor(#[source] io::Error),
    /// A program could not be detached.
    #[error("cannot detach the program of {what}: {source}")]
    Detach {
        /// The interface or the pinned link.
        what: String,
        /// Why.
        source: io::Error,
    },
    /// A link or map could not be pinned.
    #[error("cannot pin {path}: {source}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// More than the maps hold.
    #[error("{given} {what} are more than the {max} supported")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// How many were given.
        given: usize,
        /// How many fit.
        max: usize,
    },
    /// A value outside its range.
    #[error("{0}")]
    Invalid(String),
    /// A dry run failed.
    #[error("cannot run the {program:?} program on a packet: {source}")]
    Run {
        /// Which program.
        program: Program,
        /// libbpf's reason.
        source: libbpf_rs::Error,
    },
}

impl Error {
    /// True when the interface carries another XDP program already.
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Attach { source, .. }
            if source.raw_os_error() == Some(libc::EBUSY) || source.raw_os_error() == Some(libc::EEXIST))
    }
}
