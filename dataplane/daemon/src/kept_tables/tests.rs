//! What is found again, whenever the process before ended and whatever became of its files.

use std::collections::BTreeMap;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use tempfile::TempDir;
use weft_api::object::{ClusterRange, RangePurpose};

use super::*;

fn range(number: u8, purpose: RangePurpose) -> Object {
    Object::ClusterRange(ClusterRange {
        prefix: format!("10.{number}.0.0/16").parse().unwrap(),
        purpose,
    })
}

/// Generation and objects.
type State = (u64, BTreeMap<Key, Object>);

fn state(store: &ObjectStore) -> State {
    let objects = store.objects().map(|it| (it.key(), it.clone()));
    (store.generation(), objects.collect())
}

#[derive(Clone, Debug)]
enum Op {
    Upsert(Vec<(u8, bool)>),
    Delete(Vec<u8>),
    Sync(Vec<u8>),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => vec((0_u8..20, any::<bool>()), 0..4).prop_map(Op::Upsert),
        2 => vec(0_u8..20, 0..4).prop_map(Op::Delete),
        1 => vec(0_u8..20, 0..20).prop_map(Op::Sync),
    ]
}

/// A process with its files.
struct Process {
    dir: TempDir,
    kept: KeptTables,
    store: ObjectStore,
}

impl Process {
    fn start(dir: TempDir) -> Self {
        let mut kept = KeptTables::at(dir.path().join("tables.json"));
        // So that the file is written anew all the time.
        kept.journal_min = 0;
        let store = kept.load().unwrap();
        Self { dir, kept, store }
    }

    fn apply(&mut self, op: &Op) {
        let store = &mut self.store;
        let next = store.generation() + 1;
        match op {
            Op::Upsert(ranges) => {
                let purpose = |services| match services {
                    true => RangePurpose::Services,
                    false => RangePurpose::Pods,
                };
                let objects = ranges
                    .iter()
                    .map(|(n, services)| range(*n, purpose(*services)));
                store.upsert(next, objects.collect()).unwrap();
            }
            Op::Delete(numbers) => {
                let keys = numbers.iter().map(|n| range(*n, RangePurpose::Pods).key());
                store.delete(next, &keys.collect::<Vec<_>>()).unwrap();
            }
            Op::Sync(numbers) => {
                let objects = numbers.iter().map(|n| range(*n, RangePurpose::Pods));
                store.begin(next).unwrap();
                store.upsert(next, objects.collect()).unwrap();
                store.commit(next).unwrap();
            }
        }
        self.kept.keep(&mut self.store).unwrap();
    }

    /// The files as a process killed now leaves them.
    fn killed(&self) -> TempDir {
        let copy = tempfile::tempdir().unwrap();
        for name in ["tables.json", "tables.journal"] {
            if let Some(bytes) = read(&self.dir.path().join(name)).unwrap() {
                fs::write(copy.path().join(name), bytes).unwrap();
            }
        }
        copy
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_process_killed_at_any_time_leaves_what_was_in_force(ops in vec(op(), 1..40)) {
        let mut process = Process::start(tempfile::tempdir().unwrap());
        for op in &ops {
            process.apply(op);
            let next = Process::start(process.killed());
            prop_assert_eq!(state(&next.store), state(&process.store));
        }
        process.kept.finish_rewriting(true);
        let mut next = Process::start(process.killed());
        prop_assert_eq!(state(&next.store), state(&process.store));
        next.apply(&Op::Upsert(vec![(30, true)]));
        let last = Process::start(next.killed());
        prop_assert_eq!(state(&last.store), state(&next.store));
    }

    #[test]
    fn a_damaged_journal_leaves_a_state_that_was_in_force(
        ops in vec(op(), 1..20),
        at in any::<Index>(),
        becomes in proptest::option::of(any::<u8>()),
    ) {
        let mut process = Process::start(tempfile::tempdir().unwrap());
        process.kept.journal_min = u64::MAX;
        let mut states = vec![state(&process.store)];
        for op in &ops {
            process.apply(op);
            states.push(state(&process.store));
        }
        let dir = process.killed();
        let journal = dir.path().join("tables.journal");
        let mut bytes = read(&journal).unwrap().unwrap();
        if bytes.is_empty() {
            return Ok(());
        }
        let at = at.index(bytes.len());
        match becomes {
            Some(byte) => bytes[at] = byte,
            None => bytes.truncate(at),
        }
        fs::write(&journal, &bytes).unwrap();
        let mut next = Process::start(dir);
        prop_assert!(states.contains(&state(&next.store)));
        // What comes now is found again: it does not stand behind the damage.
        next.apply(&Op::Upsert(vec![(30, true)]));
        let last = Process::start(next.killed());
        prop_assert_eq!(state(&last.store), state(&next.store));
    }
}

#[test]
fn a_change_is_one_line_and_the_file_stays_as_it_was() {
    let mut process = Process::start(tempfile::tempdir().unwrap());
    process.kept.journal_min = u64::MAX;
    process.apply(&Op::Sync((0..20).collect()));
    let file = fs::read(process.kept.path()).unwrap();
    process.apply(&Op::Upsert(vec![(3, true)]));
    process.apply(&Op::Delete(vec![4]));
    assert_eq!(fs::read(process.kept.path()).unwrap(), file);
    let journal = fs::read_to_string(process.dir.path().join("tables.journal")).unwrap();
    assert_eq!(journal.lines().count(), 2);
}

#[test]
fn the_journal_is_shortened_when_it_is_as_long_as_the_file() {
    let mut process = Process::start(tempfile::tempdir().unwrap());
    process.apply(&Op::Sync((0..5).collect()));
    for number in 0..200 {
        process.apply(&Op::Upsert(vec![(number % 20, true)]));
        process.kept.finish_rewriting(true);
    }
    let length = |name: &str| fs::metadata(process.dir.path().join(name)).unwrap().len();
    let (file, journal) = (length("tables.json"), length("tables.journal"));
    assert!(journal < 3 * file, "{journal} beside {file}");
}

#[test]
fn without_files_there_is_nothing_and_a_file_that_is_cut_off_is_an_error() {
    let mut process = Process::start(tempfile::tempdir().unwrap());
    assert_eq!(process.store.generation(), 0);
    process.apply(&Op::Sync(vec![1, 2]));
    let path = process.kept.path().to_owned();
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let mut kept = KeptTables::at(path);
    assert!(kept.load().is_err());
    // The next change writes a whole one.
    let mut store = ObjectStore::default();
    store.upsert(1, vec![range(7, RangePurpose::Pods)]).unwrap();
    kept.keep(&mut store).unwrap();
    assert_eq!(state(&Process::start(process.dir).store), state(&store));
}

#[test]
fn a_file_of_the_first_version_is_taken_and_one_of_a_later_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tables.json");
    fs::write(&path, r#"{"version": 1, "generation": 7, "objects": []}"#).unwrap();
    assert_eq!(Process::start(dir).store.generation(), 7);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tables.json");
    fs::write(
        &path,
        r#"{"version": 3, "generation": 7, "serial": 1, "objects": []}"#,
    )
    .unwrap();
    assert!(KeptTables::at(path).load().is_err());
}
