//! How long things are.

use crate::Finding;
use crate::source::Source;
use crate::tree::File;

/// Lines of a file without its tests. Beyond it nobody reads a file from top to bottom.
pub const FILE_LINES_MAX: usize = 600;

/// Lines of a function: what a screen shows.
pub const FUNCTION_LINES_MAX: usize = 70;

/// Lines of a smoke test: beyond it the functions of `_lib.sh` are missing something.
pub const SMOKE_LINES_MAX: usize = 60;

/// Files and functions that are too long.
pub fn check(file: &File) -> Vec<Finding> {
    let finding = |rule, what: &str, weight, line| Finding {
        rule,
        path: file.path.clone(),
        what: what.to_owned(),
        weight,
        line,
    };
    let mut found = Vec::new();
    if file.path.ends_with("_test.sh") {
        let lines = file.text.lines().count();
        if lines > SMOKE_LINES_MAX {
            found.push(finding("smoke-length", "lines", lines, 1));
        }
    }
    let is_c = file.path.ends_with(".c") || file.path.ends_with(".h");
    if is_c && file.text.lines().count() > FILE_LINES_MAX {
        found.push(finding(
            "file-length",
            "lines",
            file.text.lines().count(),
            1,
        ));
    }
    if !file.is_rust() || file.is_test() {
        return found;
    }
    let source = Source::read(&file.text);
    let lines = source.lines().count();
    if lines > FILE_LINES_MAX {
        found.push(finding("file-length", "lines", lines, 1));
    }
    for function in source.functions() {
        if function.lines > FUNCTION_LINES_MAX {
            let what = format!("fn {}", function.name);
            found.push(finding(
                "function-length",
                &what,
                function.lines,
                function.line,
            ));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(path: &str, text: &str) -> Vec<(&'static str, usize)> {
        let found = check(&File::new(path, text)).into_iter();
        found
            .map(|finding| (finding.rule, finding.weight))
            .collect()
    }

    #[test]
    fn finds_a_file_that_is_too_long_but_not_its_tests() {
        let code = "const A: u8 = 1;\n";
        let tests = format!("#[cfg(test)]\nmod tests {{\n{}}}\n", code.repeat(900));
        let at_limit = code.repeat(FILE_LINES_MAX);
        assert_eq!(rules("a/src/x.rs", &format!("{at_limit}{tests}")), []);
        let over = format!("{at_limit}{code}{tests}");
        assert_eq!(
            rules("a/src/x.rs", &over),
            [("file-length", FILE_LINES_MAX + 1)]
        );
        assert_eq!(rules("a/tests/x.rs", &over), []);
        assert_eq!(rules("x/bpf/x.bpf.c", &over).len(), 1);
    }

    #[test]
    fn finds_a_function_that_is_too_long() {
        let body = |lines: usize| format!("fn f() {{\n{}}}\n", "    g();\n".repeat(lines - 2));
        assert_eq!(rules("a/src/x.rs", &body(FUNCTION_LINES_MAX)), []);
        let found = rules("a/src/x.rs", &body(FUNCTION_LINES_MAX + 1));
        assert_eq!(found, [("function-length", FUNCTION_LINES_MAX + 1)]);
    }

    #[test]
    fn finds_a_smoke_test_that_is_too_long() {
        let text = "ping\n".repeat(SMOKE_LINES_MAX + 1);
        assert_eq!(
            rules("perf-scripts/smoke/x_test.sh", &text),
            [("smoke-length", 61)]
        );
        assert_eq!(rules("perf-scripts/x.sh", &text), []);
    }
}
