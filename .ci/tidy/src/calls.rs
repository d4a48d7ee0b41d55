//! What is called where: nothing on the packet path that locks, allocates, logs, waits or asks the
//! time, and unsafe code in its few places only.

use crate::Finding;
use crate::source::{Source, is_word};
use crate::tree::File;

/// Code that runs per packet or per burst. A folder ends with a slash.
const PACKET_PATH: [&str; 29] = [
    "dataplane/engine/src/stage/",
    "dataplane/engine/src/encap/",
    "dataplane/engine/src/batch.rs",
    "dataplane/engine/src/chain.rs",
    "dataplane/engine/src/icmp.rs",
    "dataplane/engine/src/packet.rs",
    "dataplane/engine/src/pipeline.rs",
    "dataplane/engine/src/pmtu.rs",
    "dataplane/engine/src/reset.rs",
    "dataplane/engine/src/table/fib.rs",
    "dataplane/engine/src/table/flow/",
    "dataplane/engine/src/table/fragment.rs",
    "dataplane/engine/src/table/policy/mod.rs",
    "dataplane/engine/src/table/service/affinity.rs",
    "dataplane/engine/src/table/service/mod.rs",
    "dataplane/engine/src/table/token_bucket.rs",
    "dataplane/wire/src/",
    "dataplane/snapshot/src/subscriber.rs",
    "dataplane/xsk/src/cursor.rs",
    "dataplane/xsk/src/frame.rs",
    "dataplane/xsk/src/packet_socket.rs",
    "dataplane/xsk/src/pool.rs",
    "dataplane/xsk/src/ring.rs",
    "dataplane/xsk/src/socket/",
    "dataplane/daemon/src/burst.rs",
    "dataplane/daemon/src/egress.rs",
    "dataplane/daemon/src/idle.rs",
    "dataplane/daemon/src/queue.rs",
    "dataplane/daemon/src/worker.rs",
];

/// In those folders, but for tests of other crates, for fuzzers, or run at start.
const NOT_PACKET_PATH: [&str; 4] = [
    "dataplane/wire/src/build.rs",
    "dataplane/wire/src/build/",
    "dataplane/wire/src/fuzz.rs",
    "dataplane/engine/src/table/flow/recover.rs",
];

/// What never stands on the packet path.
const BANNED: [&str; 30] = [
    "println!",
    "eprintln!",
    "print!",
    "eprint!",
    "dbg!",
    "tracing::",
    "trace!",
    "debug!",
    "info!",
    "warn!",
    "error!",
    "format!",
    "vec!",
    "Vec::new",
    "Vec::with_capacity",
    "Box::new",
    "Arc::new",
    "Rc::new",
    "String::",
    "to_string",
    "to_owned",
    "to_vec",
    "Mutex",
    "RwLock",
    "thread::sleep",
    "Instant::now",
    "SystemTime",
    "std::fs",
    "std::process",
    "std::net::TcpStream",
];

/// The loop, which alone waits on purpose.
const WAITS: &str = "dataplane/daemon/src/worker.rs";

/// Where unsafe code may stand, each with its `UNSAFETY` line and its SAFETY comments.
const UNSAFE: [&str; 3] = [
    "dataplane/xsk/",
    "xdp-progs/",
    "control/ethtool/src/ioctl.rs",
];

/// Calls and unsafe code in the wrong place.
pub fn check(file: &File) -> Vec<Finding> {
    if !file.is_rust() {
        return Vec::new();
    }
    let source = Source::read(&file.text);
    let mut found = Vec::new();
    if !stands_in(&file.path, &UNSAFE) {
        let lines = source.code.lines().enumerate();
        let unsafe_lines = lines.filter(|(_, line)| contains(line, "unsafe"));
        found.extend(unsafe_lines.map(|(index, _)| (index + 1, "unsafe-code", "unsafe")));
    }
    let is_cold = file.is_test() || stands_in(&file.path, &NOT_PACKET_PATH);
    if stands_in(&file.path, &PACKET_PATH) && !is_cold {
        let calls = banned_calls(&source).into_iter();
        let calls = calls.filter(|(_, call)| file.path != WAITS || *call != "thread::sleep");
        found.extend(calls.map(|(line, call)| (line, "packet-path", call)));
    }
    let finding = |(line, rule, what): (usize, _, &str)| Finding {
        rule,
        path: file.path.clone(),
        what: what.to_owned(),
        weight: 1,
        line,
    };
    found.into_iter().map(finding).collect()
}

/// Constructors run before the first packet and may allocate.
fn is_constructor(name: &str) -> bool {
    name == "new" || name.starts_with("with_")
}

fn banned_calls(source: &Source) -> Vec<(usize, &'static str)> {
    let functions = source.functions().into_iter();
    let constructors: Vec<_> = functions
        .filter(|function| is_constructor(&function.name))
        .map(|function| function.line..function.line + function.lines)
        .collect();
    let mut found = Vec::new();
    for (number, line) in source.lines() {
        if !constructors.iter().any(|lines| lines.contains(&number)) {
            let banned = BANNED.iter().filter(|banned| contains(line, banned));
            found.extend(banned.map(|banned| (number, *banned)));
        }
    }
    found
}

fn stands_in(path: &str, places: &[&str]) -> bool {
    places
        .iter()
        .any(|place| path == *place || place.ends_with('/') && path.starts_with(place))
}

/// Finds `words` where no longer word contains them.
fn contains(line: &str, words: &str) -> bool {
    line.match_indices(words).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + words.len()..].chars().next();
        let open = words.ends_with([':', '!']);
        !before.is_some_and(is_word) && (open || !after.is_some_and(is_word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(path: &str, text: &str) -> Vec<String> {
        let found = check(&File::new(path, text)).into_iter();
        found
            .map(|finding| format!("{}:{}", finding.line, finding.what))
            .collect()
    }

    #[test]
    fn finds_what_allocates_logs_or_waits_on_the_packet_path() {
        let stage = "dataplane/engine/src/stage/route.rs";
        let text = "fn process() {\n    let v = Vec::new();\n    tracing::info!(\"x\");\n}";
        assert_eq!(found(stage, text), ["2:Vec::new", "3:tracing::", "3:info!"]);
        for banned in BANNED {
            assert!(
                !found(stage, &format!("fn f() {{ {banned} }}")).is_empty(),
                "{banned}"
            );
        }
        assert!(found("control/agent/src/run.rs", text).is_empty());
    }

    #[test]
    fn leaves_tests_words_in_words_and_literals_alone() {
        let stage = "dataplane/engine/src/stage/route.rs";
        for text in [
            "let all = ArrayVec::new();",
            "let text = \"format!\"; // println!",
            "#[cfg(test)]\nmod tests { fn f() { vec![1]; } }",
        ] {
            assert!(found(stage, text).is_empty(), "{text}");
        }
        assert!(found("dataplane/wire/src/build/ip.rs", "fn f() { vec![1]; }").is_empty());
    }

    #[test]
    fn only_the_loop_waits() {
        let text = "fn nap() { std::thread::sleep(NAP) }";
        assert!(found(WAITS, text).is_empty());
        assert_eq!(
            found("dataplane/daemon/src/egress.rs", text),
            ["1:thread::sleep"]
        );
    }

    #[test]
    fn constructors_may_allocate() {
        let text = "impl X {\n  fn new() -> X { X(vec![1]) }\n  fn renew() { vec![1]; }\n  \
            fn with_y() -> X { X(vec![1]) }\n}";
        assert_eq!(found("dataplane/daemon/src/egress.rs", text), ["3:vec!"]);
    }

    #[test]
    fn finds_unsafe_code_outside_its_places_even_in_tests() {
        let text = "#![expect(unsafe_code)]\n#[cfg(test)]\nmod tests { fn f() { unsafe { g() } } }";
        assert_eq!(found("dataplane/engine/src/tables.rs", text), ["3:unsafe"]);
        assert!(found("dataplane/xsk/src/sys.rs", text).is_empty());
    }
}
