//! Cuts a manifest into its documents and decodes one of them, keeping the lines.

use serde::de::{DeserializeOwned, IgnoredAny};

/// What went wrong in a text and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Line in the file, counted from 1.
    pub line: usize,
    /// One line of reason.
    pub reason: String,
}

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Syntax {
    Yaml,
    Json,
}

/// One document of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Document<'a> {
    text: &'a str,
    first_line: usize,
    syntax: Syntax,
}

/// The documents of `text` that hold anything but comments, in order. A text that starts like JSON
/// and is a sequence of JSON values is that; everything else is YAML.
///
/// # Errors
/// Broken JSON in a file named `.json`.
pub fn split<'a>(file: &str, text: &'a str) -> Result<Vec<Document<'a>>, SyntaxError> {
    let named_json = file.ends_with(".json");
    if named_json || text.trim_start().starts_with(['{', '[']) {
        match split_json(text) {
            Ok(documents) => return Ok(documents),
            Err(error) if named_json => return Err(error),
            // YAML's flow style looks alike; if it is not that either, its parser says so better.
            Err(_) => {}
        }
    }
    Ok(split_yaml(text))
}

fn split_json(text: &str) -> Result<Vec<Document<'_>>, SyntaxError> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<IgnoredAny>();
    let mut documents = Vec::new();
    let mut start = 0;
    while let Some(value) = values.next() {
        value.map_err(|e| json_error(&e, 1))?;
        let end = values.byte_offset();
        let skipped = text[start..end].len() - text[start..end].trim_start().len();
        documents.push(Document {
            text: &text[start + skipped..end],
            first_line: 1 + count_lines(&text[..start + skipped]),
            syntax: Syntax::Json,
        });
        start = end;
    }
    Ok(documents)
}

/// `---` at the start of a line always ends a document, inside a block scalar too (YAML 1.2.2,
/// 9.1.2), so lines are enough to find the documents.
fn split_yaml(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut first_line, mut at) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_marker(line, "---") {
            push_yaml(&mut documents, &text[start..at], first_line);
            (start, first_line) = (at, number + 1);
        }
        at += line.len();
    }
    push_yaml(&mut documents, &text[start..], first_line);
    documents
}

fn push_yaml<'a>(documents: &mut Vec<Document<'a>>, text: &'a str, first_line: usize) {
    let blank = |line: &str| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---" || line == "..."
    };
    if !text.lines().all(blank) {
        documents.push(Document {
            text,
            first_line,
            syntax: Syntax::Yaml,
        });
    }
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

impl Document<'_> {
    /// Line of the document's first content in the file.
    pub fn line(&self) -> usize {
        let content = |line: &str| {
            let line = line.trim();
            !(line.is_empty() || line.starts_with('#') || line == "---")
        };
        let before = self.text.lines().position(content).unwrap_or(0);
        self.first_line + before
    }

    /// Line of the first mention of `value`, for errors found after decoding.
    pub fn line_of(&self, value: &str) -> usize {
        match self.text.find(value) {
            Some(at) if !value.is_empty() => self.first_line + count_lines(&self.text[..at]),
            _ => self.line(),
        }
    }

    /// Decodes the document.
    ///
    /// # Errors
    /// With the line in the file when it is not a `T`.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, SyntaxError> {
        match self.syntax {
            Syntax::Json => {
                serde_json::from_str(self.text).map_err(|e| json_error(&e, self.first_line))
            }
            Syntax::Yaml => serde_saphyr::from_str(self.text).map_err(|e| self.yaml_error(&e)),
        }
    }

    /// The value of the first line `field: value` in block style, at the start of a line (`depth`
    /// 0) or indented. For documents that cannot be decoded.
    pub fn first_value(&self, depth: usize, field: &str) -> Option<&str> {
        self.text.lines().find_map(|line| {
            let text = line.trim_start();
            let fits = (line.len() > text.len()) == (depth > 0);
            let rest = text
                .strip_prefix(field)
                .filter(|_| fits)?
                .strip_prefix(':')?;
            Some(rest.trim().trim_matches(['"', '\'']))
        })
    }

    /// The line of the value at `index` of the list `items`, where the syntax tells.
    pub fn item_lines(&self) -> Vec<usize> {
        #[derive(serde::Deserialize)]
        struct Lines {
            items: Vec<serde_saphyr::Spanned<IgnoredAny>>,
        }
        if self.syntax == Syntax::Json {
            return Vec::new();
        }
        let decoded: Result<Lines, _> = serde_saphyr::from_str(self.text);
        let offset = self.first_line - 1;
        let line = |item: &serde_saphyr::Spanned<IgnoredAny>| to_usize(item.referenced.line());
        decoded.map_or_else(
            |_| Vec::new(),
            |lines| lines.items.iter().map(|item| offset + line(item)).collect(),
        )
    }

    fn yaml_error(&self, error: &serde_saphyr::Error) -> SyntaxError {
        let error = error.without_snippet();
        let within = error.location().map_or(1, |at| to_usize(at.line()).max(1));
        SyntaxError {
            line: self.first_line - 1 + within,
            reason: one_line(&error.to_string()),
        }
    }
}

fn json_error(error: &serde_json::Error, first_line: usize) -> SyntaxError {
    SyntaxError {
        line: first_line - 1 + error.line().max(1),
        reason: one_line(&error.to_string()),
    }
}

fn count_lines(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

fn to_usize(line: u64) -> usize {
    usize::try_from(line).unwrap_or(usize::MAX / 2)
}

/// Parsers' messages as one line, without the position they repeat.
fn one_line(message: &str) -> String {
    let joined = message.split_whitespace().collect::<Vec<_>>().join(" ");
    match joined.rfind(" at line ") {
        Some(at) => joined[..at].to_owned(),
        None => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(file: &str, text: &str) -> Vec<usize> {
        let documents = split(file, text).unwrap();
        documents.iter().map(Document::line).collect()
    }

    #[test]
    fn documents_know_their_lines() {
        let text = "# head\n---\na: 1\n---\n\n# note\nb: |\n  x\n--- \n---\n...\n--- {c: 3}\n";
        assert_eq!(lines("x.yaml", text), [3, 7, 12]);
        assert_eq!(lines("x.yaml", "a: 1\r\n---\r\nb: 2\r\n"), [1, 3]);
        assert_eq!(lines("x.yaml", "a: ---x\n----\nb: 1"), [1]);
        assert_eq!(lines("x.json", "\n{}\n\n {\"a\":1}"), [2, 4]);
        assert_eq!(lines("x.yaml", "# nothing\n---\n"), [] as [usize; 0]);
    }

    #[test]
    fn errors_name_the_line_of_the_file() {
        let json = split("x.json", "{}\n{\"a\": \n").unwrap_err();
        assert_eq!(json.line, 3);
        let documents = split("x.yaml", "a: 1\n---\nb: 2\nc: [1, 2\n").unwrap();
        let error = documents[1].decode::<serde_json::Value>().unwrap_err();
        assert!(error.line >= 4, "{error:?}");
        let typed = documents[0].decode::<Vec<u8>>().unwrap_err();
        assert_eq!(typed.line, 1);
        assert!(!typed.reason.contains('\n'));
    }

    #[test]
    fn flow_style_yaml_is_not_taken_for_broken_json() {
        let documents = split("x.yaml", "{a: 1}\n").unwrap();
        let value: serde_json::Value = documents[0].decode().unwrap();
        assert_eq!(value["a"], 1);
    }
}
