//! Who depends on whom. The rule is the table in `ARCHITECTURE.md`; the truth is in every `Cargo.toml`.

use std::collections::BTreeMap;

use crate::Finding;
use crate::tree::File;

/// The line above the table.
const HEADING: &str = "Who may depend on whom";

/// In the table: every crate but those nothing may depend on.
const ANYTHING: &str = "anything";

/// The packages a package may name among its dependencies, all without `weft-`.
type Allowed = BTreeMap<String, Vec<String>>;

/// Dependencies the table does not allow, and members it does not know.
pub fn check(architecture: &str, manifests: &[File]) -> Vec<Finding> {
    let allowed = table(architecture);
    let mut found = Vec::new();
    for file in manifests {
        let Some(name) = package(&file.text) else {
            continue; // the workspace's own
        };
        let finding = |what: String, line| Finding {
            rule: "dependency",
            path: file.path.clone(),
            what,
            weight: 1,
            line,
        };
        let Some(rule) = allowed.get(name) else {
            let what = format!("{name} is not in the table of ARCHITECTURE.md");
            found.push(finding(what, 1));
            continue;
        };
        for (line, dependency) in dependencies(&file.text) {
            let fits = |allowed: &String| allowed == dependency || allowed == ANYTHING;
            if !rule.iter().any(fits) {
                found.push(finding(format!("{name} depends on {dependency}"), line));
            }
        }
    }
    found
}

/// Rows such as "| `engine` | `wire`, `xsk` |".
fn table(architecture: &str) -> Allowed {
    let lines = architecture
        .lines()
        .skip_while(|line| !line.starts_with(HEADING));
    let rows = lines
        .skip_while(|line| !line.starts_with('|'))
        .take_while(|line| line.starts_with('|'));
    rows.filter_map(|row| {
        let mut cells = row.trim_matches('|').split('|').map(names);
        let crates = cells.next()?;
        let allowed = cells.next()?;
        Some(crates.into_iter().map(move |name| (name, allowed.clone())))
    })
    .flatten()
    .collect()
}

/// What stands between backticks.
fn names(cell: &str) -> Vec<String> {
    cell.split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The crate's name without `weft-`.
fn package(manifest: &str) -> Option<&str> {
    let section = manifest.split("[package]").nth(1)?;
    let line = section.lines().find(|line| line.starts_with("name"))?;
    line.split('"')
        .nth(1)
        .map(|name| name.trim_start_matches("weft-"))
}

/// Our own crates among the dependencies of any kind, each with its line.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (index, line) in manifest.lines().enumerate() {
        if line.starts_with('[') {
            inside = line.trim_end_matches(']').ends_with("dependencies");
        } else if inside && let Some(rest) = line.strip_prefix("weft-") {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '-');
            found.push((index + 1, &rest[..end.unwrap_or(rest.len())]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "Text.\n\nWho may depend on whom:\n\n| crate | may use |\n|---|---|\n\
        | `wire`, `xsk` | nothing |\n| `engine` | `wire` |\n| `bench` | `anything` |\n\n| `x` | `y` |\n";

    fn manifest(name: &str, dependencies: &str) -> File {
        let text = format!(
            "[package]\nname = \"weft-{name}\"\n\n[dependencies]\nlibc.workspace = true\n{dependencies}"
        );
        File::new(&format!("{name}/Cargo.toml"), &text)
    }

    fn broken(file: File) -> Vec<String> {
        let found = check(MAP, &[file]).into_iter();
        found.map(|finding| finding.what).collect()
    }

    #[test]
    fn lets_pass_what_the_table_allows() {
        assert!(broken(manifest("engine", "weft-wire.workspace = true")).is_empty());
        assert!(broken(manifest("bench", "weft-engine = { path = \"../e\" }")).is_empty());
        assert!(broken(File::new("Cargo.toml", "[workspace]\nmembers = []")).is_empty());
    }

    #[test]
    fn finds_a_dependency_against_the_direction() {
        let found = broken(manifest("wire", "weft-engine.workspace = true"));
        assert_eq!(found, ["wire depends on engine"]);
        let found = broken(manifest(
            "xsk",
            "[dev-dependencies]\nweft-wire.workspace = true",
        ));
        assert_eq!(found, ["xsk depends on wire"]);
    }

    #[test]
    fn finds_a_member_the_table_does_not_know() {
        assert_eq!(broken(manifest("x", "")).len(), 1);
    }
}
