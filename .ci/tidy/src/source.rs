//! Just enough of Rust's grammar: what is code, what belongs to tests, where functions begin and end.

/// A Rust file, read.
#[derive(Debug)]
pub struct Source {
    /// The text, with comments and the insides of literals blanked; every line is where it was.
    pub code: String,
    /// For every line, whether it belongs to a `#[cfg(test)]` item.
    pub test: Vec<bool>,
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// The line of `fn`, from 1.
    pub line: usize,
    /// Lines from `fn` to the closing brace, both included.
    pub lines: usize,
}

impl Source {
    /// Reads `text`.
    pub fn read(text: &str) -> Self {
        let code = blank(text);
        let test = test_lines(&code);
        Self { code, test }
    }

    /// Lines of code outside tests, numbered from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbered = self.code.lines().enumerate();
        numbered
            .filter(|(index, _)| !self.test[*index])
            .map(|(index, line)| (index + 1, line))
    }

    /// Functions outside tests.
    pub fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let before = self.code[..at].chars().next_back();
            let after = &self.code[at + 3..];
            let name: String = after.chars().take_while(|c| is_word(*c)).collect();
            let line = line_of(&self.code, at);
            if before.is_some_and(is_word) || name.is_empty() || self.test[line - 1] {
                continue;
            }
            if let Some(end) =
                item_end(&self.code, at).filter(|end| self.code[..*end].ends_with('}'))
            {
                let lines = line_of(&self.code, end - 1) - line + 1;
                found.push(Function { name, line, lines });
            }
        }
        found
    }
}

/// True for what identifiers are made of.
pub fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

/// Behind the `}` or `;` that ends the item beginning at `from`.
fn item_end(code: &str, from: usize) -> Option<usize> {
    let (mut braces, mut others) = (0_usize, 0_usize);
    for (offset, c) in code[from..].char_indices() {
        match c {
            '(' | '[' => others += 1,
            ')' | ']' => others = others.saturating_sub(1),
            '{' => braces += 1,
            '}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 && others == 0 {
                    return Some(from + offset + 1);
                }
            }
            ';' if braces == 0 && others == 0 => return Some(from + offset + 1),
            _ => (),
        }
    }
    None
}

fn test_lines(code: &str) -> Vec<bool> {
    let mut test = vec![false; code.lines().count()];
    for (at, _) in code.match_indices("#[cfg(") {
        let condition = code[at..].split(']').next().unwrap_or_default();
        if !condition.split(|c| !is_word(c)).any(|word| word == "test") {
            continue;
        }
        let item = at + condition.len() + 1;
        let end = item_end(code, item).unwrap_or(code.len());
        let last = line_of(code, end).min(test.len());
        test[line_of(code, at) - 1..last].fill(true);
    }
    test
}

/// Blanks comments and the insides of literals, byte for byte.
fn blank(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let in_word = out.chars().next_back().is_some_and(is_word);
        let (len, is_code) = match first {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            '/' if rest.starts_with("/*") => (comment_len(rest), false),
            '"' => (string_len(rest, 1), false),
            'r' | 'b' | 'c' if !in_word => match literal_prefix(rest) {
                Some(len) => (len, false),
                None => (first.len_utf8(), true),
            },
            '\'' if is_character(rest) => (string_len_of(rest, 1, '\''), false),
            _ => (first.len_utf8(), true),
        };
        let (piece, next) = rest.split_at(len);
        if is_code {
            out.push_str(piece);
        } else {
            out.extend(piece.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }));
        }
        rest = next;
    }
    out
}

/// Length of a literal with a prefix: `b"`, `r#"`, `br"`, `c"`, `b'`.
fn literal_prefix(text: &str) -> Option<usize> {
    let letters = text.find(|c: char| !c.is_ascii_lowercase())?;
    let (prefix, rest) = text.split_at(letters);
    if !["r", "b", "c", "br", "cr"].contains(&prefix) {
        return None;
    }
    if prefix == "b" && rest.starts_with('\'') {
        return Some(string_len_of(text, 2, '\''));
    }
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    if !rest[hashes..].starts_with('"') {
        return None; // a raw identifier, or a word that begins like a prefix
    }
    if !prefix.contains('r') {
        return (hashes == 0).then(|| string_len(text, letters + 1));
    }
    let open = letters + hashes + 1;
    let close = format!("\"{}", "#".repeat(hashes));
    let end = text[open..].find(&close).map(|at| open + at + close.len());
    Some(end.unwrap_or(text.len()))
}

fn string_len(text: &str, open: usize) -> usize {
    string_len_of(text, open, '"')
}

/// Length of a literal with escapes whose inside begins at `open`.
fn string_len_of(text: &str, open: usize, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text[open..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return open + at + 1,
            _ => (),
        }
    }
    text.len()
}

/// A character literal, not a lifetime.
fn is_character(text: &str) -> bool {
    let mut inside = text.chars().skip(1);
    inside.next() == Some('\\') || inside.next() == Some('\'')
}

/// Comments nest.
fn comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, usize)> {
        let functions = Source::read(text).functions().into_iter();
        functions.map(|f| (f.name, f.lines)).collect()
    }

    #[test]
    fn literals_and_comments_are_no_code() {
        let text = "a(\"fn x() {\", '{', b'\"', r#\"}\"#, br\"{\"); // fn y() {\n/* { /* */ { */ b";
        let code = Source::read(text).code;
        assert_eq!(code.len(), text.len());
        assert!(
            !code.contains(['{', '}', '"']) && code.ends_with("b"),
            "{code}"
        );
        assert_eq!(
            Source::read("fn f<'a>(x: &'a str) {}").code,
            "fn f<'a>(x: &'a str) {}"
        );
        assert_eq!(
            Source::read("let r#fn = bar; rb").code,
            "let r#fn = bar; rb"
        );
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let text = "impl X {\n  pub const fn one(a: [u8; 4])\n  -> u8 {\n    if a { 1 }\n  }\n}\ntrait T { fn none(); }\nfn two() {}";
        assert_eq!(names(text), [("one".to_owned(), 4), ("two".to_owned(), 1)]);
        assert_eq!(names("type F = fn (u8) -> u8; struct S { f: fn(u8) }"), []);
    }

    #[test]
    fn what_is_for_tests_is_left_out() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() {}\n}\n#[cfg(all(test, loom))]\nuse x;\nfn c() {}";
        assert_eq!(names(text), [("a".to_owned(), 1), ("c".to_owned(), 1)]);
        assert_eq!(Source::read(text).lines().count(), 2);
        assert_eq!(names("#[cfg(loom)]\nfn d() {}"), [("d".to_owned(), 1)]);
    }
}
