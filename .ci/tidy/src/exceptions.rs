//! What is let pass for now. An exception states how bad its place is; better must be written down, worse
//! is a finding, so the list can only shrink.

use std::collections::BTreeMap;

use crate::Finding;

/// Compares findings with exceptions, one per line as `RULE PATH WEIGHT WHAT`; `#` begins a comment.
/// Returns what has to be mended, in words.
pub fn judge(findings: &[Finding], exceptions: &str) -> Vec<String> {
    let mut places: BTreeMap<(String, String, String), (usize, &Finding)> = BTreeMap::new();
    for finding in findings {
        let key = (
            finding.rule.to_owned(),
            finding.path.clone(),
            finding.what.clone(),
        );
        places.entry(key).or_insert((0, finding)).0 += finding.weight;
    }
    let mut wrong = Vec::new();
    for line in exceptions.lines() {
        if line.starts_with('#') || line.is_empty() {
            continue;
        }
        let Some((key, allowed)) = exception(line) else {
            wrong.push(format!("exception not understood: {line}"));
            continue;
        };
        match places.remove(&key) {
            Some((weight, _)) if weight == allowed => (),
            Some((weight, finding)) if weight > allowed => {
                wrong.push(format!(
                    "{finding}: {weight}, and the exception ends at {allowed}"
                ));
            }
            Some((weight, _)) => wrong.push(format!("now {weight}, lower the exception: {line}")),
            None => wrong.push(format!("mended, remove the exception: {line}")),
        }
    }
    wrong.extend(places.values().map(|(_, finding)| finding.to_string()));
    wrong
}

fn exception(line: &str) -> Option<((String, String, String), usize)> {
    let mut parts = line.splitn(4, ' ');
    let (rule, path) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    let weight = parts.next()?.parse().ok()?;
    Some(((rule, path, parts.next()?.to_owned()), weight))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(weight: usize) -> Finding {
        Finding {
            rule: "function-length",
            path: "a.rs".to_owned(),
            what: "fn f".to_owned(),
            weight,
            line: 7,
        }
    }

    #[test]
    fn an_exception_holds_only_as_long_as_it_is_exact() {
        let exception = "# why\n\nfunction-length a.rs 80 fn f\n";
        assert_eq!(judge(&[finding(80)], exception), Vec::<String>::new());
        for (weight, said) in [(81, "ends at 80"), (79, "lower the exception")] {
            let wrong = judge(&[finding(weight)], exception);
            assert!(wrong.len() == 1 && wrong[0].contains(said), "{wrong:?}");
        }
        assert!(judge(&[], exception)[0].contains("remove the exception"));
    }

    #[test]
    fn a_finding_without_exception_is_reported_with_its_place() {
        assert_eq!(
            judge(&[finding(80)], ""),
            ["a.rs:7: function-length: fn f (80)"]
        );
        assert_eq!(judge(&[], "nonsense").len(), 1);
    }
}
