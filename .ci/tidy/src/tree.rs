//! The files of the repository.

use std::fs;
use std::io;
use std::path::Path;

/// Folders that hold nothing written by hand.
const SKIPPED: [&str; 4] = ["target", ".git", "corpus", "node_modules"];

/// A text file.
#[derive(Clone, Debug)]
pub struct File {
    /// From the top of the repository, with slashes.
    pub path: String,
    /// Its content.
    pub text: String,
}

impl File {
    /// A file that exists in a test only.
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
        }
    }

    /// True for Rust.
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// True for files that hold tests and their support, and nothing else.
    pub fn is_test(&self) -> bool {
        let folder = ["tests", "benches", "examples"];
        let stem = self.path.rsplit('/').next().unwrap_or_default();
        self.path.split('/').any(|part| folder.contains(&part))
            || stem == "tests.rs"
            || stem.ends_with("_tests.rs")
    }
}

/// Every text file below `root`, in order.
///
/// # Errors
/// When a folder or file cannot be read.
pub fn read(root: &Path) -> io::Result<Vec<File>> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let name = entry.file_name();
            if kind.is_dir() && !SKIPPED.iter().any(|skipped| name == *skipped) {
                folders.push(entry.path());
            } else if kind.is_file()
                && let Ok(text) = String::from_utf8(fs::read(entry.path())?)
            {
                let path = entry.path();
                let path = path.strip_prefix(root).unwrap_or(&path);
                files.push(File::new(&path.to_string_lossy(), &text));
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
