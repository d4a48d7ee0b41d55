//! What stands in no file: work left undone, and places that exist on one machine.

use crate::Finding;
use crate::source::is_word;
use crate::tree::File;

/// Where these words stand because they are defined there.
const DEFINED_IN: &str = ".ci/tidy/src/words.rs";

/// Unfinished work belongs into the list of limits, or is done.
const UNFINISHED: [&str; 3] = ["TODO", "FIXME", "XXX"];

/// No path of somebody's machine.
const FOREIGN: [&str; 3] = ["/home/", "/root/", "file:///"];

/// Words that should not be there.
pub fn check(file: &File) -> Vec<Finding> {
    if file.path == DEFINED_IN || file.path.ends_with("Cargo.lock") {
        return Vec::new();
    }
    let mut found = Vec::new();
    for (index, line) in file.text.lines().enumerate() {
        let unfinished = UNFINISHED.iter().filter(|word| has_word(line, word));
        let foreign = FOREIGN.iter().filter(|word| line.contains(**word));
        let found_here = unfinished
            .map(|word| ("unfinished", word))
            .chain(foreign.map(|word| ("foreign-word", word)));
        found.extend(found_here.map(|(rule, word)| Finding {
            rule,
            path: file.path.clone(),
            what: (*word).to_owned(),
            weight: 1,
            line: index + 1,
        }));
    }
    found
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c| !is_word(c)).any(|part| part == word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_unfinished_work_and_foreign_places() {
        let text = "fine\n// TODO: later\nvolume: /root/x\n# /home/me/weft\n// FIXME";
        let found = check(&File::new("deploy/x.yaml", text));
        let lines: Vec<_> = found
            .iter()
            .map(|finding| (finding.line, finding.rule))
            .collect();
        let expected = [
            (2, "unfinished"),
            (3, "foreign-word"),
            (4, "foreign-word"),
            (5, "unfinished"),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn leaves_longer_words_and_the_definition_alone() {
        assert!(
            check(&File::new(
                "a.rs",
                "XXXX TODOS mktemp -d x.XXXXXX.y TODO_LIST"
            ))
            .is_empty()
        );
        assert!(check(&File::new(DEFINED_IN, "TODO /home/me")).is_empty());
    }
}
