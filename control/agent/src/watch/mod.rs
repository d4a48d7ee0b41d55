//! Where the desired state comes from.

use std::path::PathBuf;
use std::str::FromStr;

pub mod dir;

/// A source of desired state, as `--source` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A directory of manifests.
    Dir(PathBuf),
    /// The Kubernetes API.
    Kubernetes,
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("dir", path)) if !path.is_empty() => Ok(Self::Dir(PathBuf::from(path))),
            None if text == "kubernetes" => Ok(Self::Kubernetes),
            _ => Err(format!("'{text}' is neither dir:PATH nor kubernetes")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_named_as_in_the_help() {
        assert_eq!("dir:/etc/weft".parse(), Ok(Source::Dir("/etc/weft".into())));
        assert_eq!("kubernetes".parse(), Ok(Source::Kubernetes));
        for bad in ["", "dir:", "/etc/weft", "kubernetes:x"] {
            assert!(bad.parse::<Source>().is_err(), "{bad}");
        }
    }
}
