use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;
use mpreg_patterns::base::RunId;
use mpreg_patterns::ops::Event;
use mpreg_patterns::store::{Ask, LANE_DEAD, LANE_DELAYED, Line, Load, Message, Place, Told};
use mpreg_patterns::values::Value;
use proptest::prelude::*;
use rstest::rstest;
use tempfile::TempDir;

use super::*;

/// Longer than any answer takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn place(line: u32, lane: u8, at_ms: u64, seq: u64) -> Place {
    Place { line, lane, at_ms, seq }
}

fn message(text: &str) -> Arc<Message> {
    let payload = Value::json(format!("\"{text}\""));
    let event = Event { topic: "t".into(), payload, headers: None, message: RunId(1) };
    Arc::new(Message {
        event: Arc::new(event),
        key: None,
        priority: 4,
        attempts: 0,
        expires_ms: None,
        death: None,
    })
}

fn about(queue: &str) -> Bytes {
    format!("{{\"queue\":\"{queue}\"}}").into()
}

fn put(seq: u64, text: &str) -> Ask {
    Ask::Put { place: place(1, 5, 0, seq), message: message(text) }
}

fn delete(seq: u64) -> Ask {
    Ask::Delete { place: place(1, 5, 0, seq) }
}

fn fetch(fetch: u32) -> Ask {
    Ask::Fetch { fetch, line: 1, lane: 5, after: None, count: 1_000_000, bytes: u32::MAX }
}

fn clear(keep: &[u64]) -> Ask {
    let stays = |seq: &u64| match put(*seq, "stays") {
        Ask::Put { place, message } => (place, message),
        other => panic!("{other:?}"),
    };
    Ask::Clear { line: 1, lane: 5, keep: keep.iter().map(stays).collect() }
}

/// A store, and its bell.
struct Rig {
    folder: TempDir,
    options: Options,
    store: Option<Store>,
    bell: Receiver<()>,
    lines: Vec<Line>,
}

impl Rig {
    fn new() -> Self {
        Self::with(Options::default())
    }

    fn with(options: Options) -> Self {
        Self::of(tempfile::tempdir().unwrap(), options)
    }

    fn of(folder: TempDir, options: Options) -> Self {
        let (ring, bell) = channel();
        let waker = move || _ = ring.send(());
        let (store, lines) = Store::open(folder.path(), &options, waker).unwrap();
        Self { folder, options, store: Some(store), bell, lines }
    }

    /// Closes it, lets something be done to its folder, and opens it again.
    fn reopen(mut self, meanwhile: impl FnOnce(&Path)) -> Self {
        self.store = None;
        meanwhile(self.folder.path());
        Self::of(self.folder, self.options)
    }

    fn ask(&mut self, asks: impl IntoIterator<Item = Ask>) {
        let store = self.store.as_mut().unwrap();
        asks.into_iter().for_each(|ask| store.ask(ask));
        store.send();
    }

    fn next(&mut self) -> Told {
        loop {
            match self.store.as_mut().unwrap().told() {
                Some(told) => return told,
                None => self.bell.recv_timeout(PATIENCE).expect("the store tells something"),
            }
        }
    }

    /// Waits until so many writes are safe, and no more.
    fn synced(&mut self, writes: u64) {
        loop {
            match self.next() {
                Told::Synced { writes: now } if now == writes => return,
                Told::Synced { writes: now } => assert!(now < writes, "{now} of {writes}"),
                other => panic!("{other:?}"),
            }
        }
    }

    /// What a fetch finds: payloads, whether the lane ends, and numbers of what is damaged.
    fn fetched(&mut self, fetch: u32) -> (Vec<String>, bool, Vec<u64>) {
        loop {
            match self.next() {
                Told::Fetched { fetch: of, messages, end, damaged } if of == fetch => {
                    let texts = messages.iter().map(|(_, message)| text(message)).collect();
                    return (texts, end, damaged.iter().map(|place| place.seq).collect());
                }
                Told::Synced { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn data(&self) -> PathBuf {
        lmdb::data_file(self.folder.path())
    }
}

fn text(message: &Message) -> String {
    String::from_utf8_lossy(&message.event.payload.bytes).trim_matches('"').to_owned()
}

fn texts(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

#[test]
fn what_is_put_is_fetched_in_order_and_what_is_deleted_is_not() {
    let mut rig = Rig::new();
    assert_eq!(rig.lines, []);
    rig.ask([put(1, "one"), put(2, "two"), put(3, "three"), fetch(7)]);
    assert_eq!(rig.fetched(7), (texts(&["one", "two", "three"]), true, vec![]));
    rig.ask([delete(2), put(3, "changed"), fetch(8)]);
    assert_eq!(rig.fetched(8), (texts(&["one", "changed"]), true, vec![]));
    rig.synced(5);
    rig.ask([fetch(9)]);
    assert_eq!(rig.fetched(9), (texts(&["one", "changed"]), true, vec![]));
}

#[test]
fn lanes_with_times_are_ordered_by_them() {
    let mut rig = Rig::new();
    let put = |lane, at_ms, seq, text: &str| Ask::Put {
        place: place(1, lane, at_ms, seq),
        message: message(text),
    };
    rig.ask([
        put(LANE_DELAYED, 900, 1, "late"),
        put(LANE_DELAYED, 20, 3, "soon, second"),
        put(LANE_DELAYED, 20, 2, "soon"),
        put(LANE_DEAD, 10, 4, "dead"),
    ]);
    let lane = LANE_DELAYED;
    rig.ask([Ask::Fetch { fetch: 1, line: 1, lane, after: None, count: 9, bytes: 1 << 20 }]);
    assert_eq!(rig.fetched(1).0, texts(&["soon", "soon, second", "late"]));
    let after = Some((20, 2));
    rig.ask([Ask::Fetch { fetch: 2, line: 1, lane, after, count: 9, bytes: 1 << 20 }]);
    assert_eq!(rig.fetched(2).0, texts(&["soon, second", "late"]));
}

#[rstest]
#[case::of_more(2, u32::MAX, 2, false)]
#[case::of_all(3, u32::MAX, 3, true)]
#[case::until_full(3, 1, 1, false)]
#[case::of_nothing(0, u32::MAX, 0, false)]
fn a_fetch_is_bounded(
    #[case] count: u32,
    #[case] bytes: u32,
    #[case] found: usize,
    #[case] ends: bool,
) {
    let mut rig = Rig::new();
    rig.ask([put(1, "one"), put(2, "two"), put(3, "three")]);
    rig.synced(3);
    rig.ask([Ask::Fetch { fetch: 1, line: 1, lane: 5, after: None, count, bytes }]);
    let (messages, end, _) = rig.fetched(1);
    assert_eq!((messages.len(), end), (found, ends));
}

#[test]
fn a_reopened_store_tells_what_is_in_it() {
    let mut rig = Rig::new();
    rig.ask([
        Ask::Line { line: 1, about: about("jobs") },
        Ask::Line { line: 2, about: about("x") },
    ]);
    rig.ask([put(1, "one"), put(2, "two"), put(9, "nine"), delete(2), Ask::Drop { line: 2 }]);
    rig.synced(7);
    let rig = rig.reopen(|_| {});
    let mut lanes = [Load::default(); LANE_DEAD as usize + 1];
    let bytes = message("one").bytes() + message("nine").bytes();
    lanes[5] = Load { count: 2, bytes: bytes as u64 };
    assert_eq!(rig.lines, [Line { line: 1, about: about("jobs"), lanes, next_seq: 10 }]);
}

/// What is asked while the thread stands still is one batch.
#[test]
fn a_message_that_goes_within_a_batch_is_never_written() {
    let folder = tempfile::tempdir().unwrap();
    let (ring, bell) = channel();
    let (go_on, gate) = channel::<()>();
    let waker = move || {
        _ = ring.send(());
        _ = gate.recv();
    };
    let (mut store, _) = Store::open(folder.path(), &Options::default(), waker).unwrap();
    store.ask(Ask::Line { line: 1, about: about("jobs") });
    store.send();
    bell.recv_timeout(PATIENCE).unwrap();
    let before = std::fs::read(lmdb::data_file(folder.path())).unwrap();
    for seq in 0..1_000 {
        store.ask(put(seq, "passing"));
        store.ask(delete(seq));
    }
    store.send();
    assert_eq!(store.told(), Some(Told::Synced { writes: 1 }));
    assert_eq!(store.told(), None);
    go_on.send(()).unwrap();
    bell.recv_timeout(PATIENCE).unwrap();
    assert_eq!(store.told(), Some(Told::Synced { writes: 2_001 }));
    assert!(std::fs::read(lmdb::data_file(folder.path())).unwrap() == before, "it was written");
    drop(go_on);
}

#[test]
fn a_fetch_between_put_and_delete_sees_the_message() {
    let mut rig = Rig::new();
    rig.ask([put(1, "one"), fetch(1), delete(1), fetch(2)]);
    assert_eq!(rig.fetched(1).0, texts(&["one"]));
    assert_eq!(rig.fetched(2), (vec![], true, vec![]));
}

#[test]
fn a_cleared_lane_is_empty_at_once_and_swept_slice_by_slice() {
    let mut rig = Rig::new();
    rig.ask((0..5_000).map(|seq| put(seq, "old")));
    rig.ask([clear(&[]), put(3, "put again"), put(5_000, "new"), fetch(1)]);
    assert_eq!(rig.fetched(1).0, texts(&["put again", "new"]));
    rig.synced(5_003);
    // Each of these is a commit, and sweeps a slice.
    for time in 1..=6 {
        rig.ask([Ask::Line { line: 1, about: about("jobs") }]);
        rig.synced(5_003 + time);
    }
    let rig = rig.reopen(|folder| {
        let (env, tables, lines) = opening::open(folder, &Options::default(), 9).unwrap();
        assert!(lines.garbage.is_empty());
        assert_eq!(tables.messages.len(&env.read_txn().unwrap()).unwrap(), 2);
    });
    assert_eq!(rig.lines[0].lanes[5].count, 2);
}

#[test]
fn a_dropped_line_leaves_nothing_to_one_of_its_number() {
    let mut rig = Rig::new();
    rig.ask([put(1, "old"), Ask::Drop { line: 1 }, put(1, "new"), fetch(1)]);
    assert_eq!(rig.fetched(1).0, texts(&["new"]));
    let rig = rig.reopen(|_| {});
    assert_eq!(rig.lines[0].lanes[5].count, 1);
}

#[test]
fn the_map_grows_before_it_is_full() {
    let mut rig = Rig::with(Options { map_bytes: MIN_BYTES, ..Options::default() });
    let long = "x".repeat(10_000);
    rig.ask((0..2_000).map(|seq| put(seq, &long)));
    rig.synced(2_000);
    assert!(rig.data().metadata().unwrap().len() > 16 << 20);
    let mut rig = rig.reopen(|_| {});
    rig.ask([fetch(1)]);
    assert_eq!(rig.fetched(1).0.len(), 2_000);
}

#[test]
fn a_full_store_says_so_and_opens_again() {
    let retry = Duration::from_millis(1);
    let mut rig = Rig::with(Options { max_bytes: Some(MIN_BYTES), retry, ..Options::default() });
    let long = "x".repeat(1_000);
    rig.ask((0..2_000).map(|seq| put(seq, &long)));
    let mut synced = 0;
    let refusal = loop {
        match rig.next() {
            Told::Synced { writes } => synced = writes,
            Told::Full { refusal } => assert_eq!(refusal.code, "store_full"),
            Told::Failed { refusal } => break refusal,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refusal.code, "store_full");
    assert!(refusal.message.contains("data.mdb"), "{}", refusal.message);
    // This crosses with the failure, and is dropped like what failed.
    rig.ask([delete(0)]);
    let Told::Opened { lines } = rig.next() else { panic!("it is not open again") };
    assert!(synced > 300);
    assert_eq!(lines[0].lanes[5].count, synced);
    assert!(rig.data().metadata().unwrap().len() <= MIN_BYTES);
    assert!(matches!(rig.next(), Told::Full { .. }), "it is as full as it was");
    // Deletes find room, and make it.
    rig.ask((0..synced).map(delete));
    // There may be room before all of them are done.
    let (mut deleted, mut room) = (0, false);
    while deleted < synced || !room {
        match rig.next() {
            Told::Synced { writes } => deleted = writes,
            Told::Room => room = true,
            other => panic!("{other:?}"),
        }
    }
    rig.ask([put(5_000, "room"), fetch(1)]);
    assert_eq!(rig.fetched(1).0, texts(&["room"]));
}

#[test]
fn a_store_says_that_it_is_full_before_it_is() {
    let mut rig = Rig::with(Options { max_bytes: Some(MIN_BYTES), ..Options::default() });
    let long = "x".repeat(1_000);
    // One write a commit, until it wants no more.
    let refusal = (1..).find_map(|seq| {
        rig.ask([put(seq, &long)]);
        rig.synced(seq);
        rig.ask([fetch(seq as u32)]);
        match rig.next() {
            Told::Full { refusal } => Some((seq, refusal)),
            Told::Fetched { .. } => None,
            other => panic!("{other:?}"),
        }
    });
    let (last, refusal) = refusal.unwrap();
    let most = format!("of the {MIN_BYTES} bytes that store.max_bytes allows");
    assert!(refusal.message.contains(&most), "{refusal}");
    assert!((500..800).contains(&last), "{last}");
    assert!(matches!(rig.next(), Told::Fetched { .. }));
    // What had been asked for before that was heard is done still, and so is what comes of it.
    rig.ask((last + 1..last + 20).map(|seq| put(seq, &long)));
    rig.synced(last + 19);
    rig.ask((1..=last / 4).map(delete));
    rig.synced(last + 19 + last / 4);
    assert_eq!(rig.next(), Told::Room);
}

#[test]
fn a_full_store_makes_room_of_what_is_cleared() {
    let mut rig = Rig::with(Options { max_bytes: Some(MIN_BYTES), ..Options::default() });
    let long = "x".repeat(1_000);
    for round in 0..10 {
        rig.ask((0..400).map(|seq| put(round * 400 + seq, &long)));
        rig.ask([clear(&[])]);
        rig.synced((round + 1) * 401);
    }
}

#[test]
fn a_folder_has_one_store() {
    let rig = Rig::new();
    let error = Store::open(rig.folder.path(), &Options::default(), || {}).unwrap_err();
    assert!(matches!(error, StoreError::Taken { .. }), "{error}");
    assert!(error.to_string().contains(&*rig.folder.path().to_string_lossy()), "{error}");
    assert!(matches!(check(rig.folder.path()), Err(StoreError::Taken { .. })));
    assert!(matches!(compact(rig.folder.path()), Err(StoreError::Taken { .. })));
}

/// Where not even the system's first user can write.
#[rstest]
#[case::nothing_is_made_there("/proc/self/nowhere")]
#[case::nothing_is_written_there("/proc/self")]
#[case::no_folder("/dev/null")]
fn a_folder_that_cannot_be_written_is_named(#[case] folder: &str) {
    let error = Store::open(Path::new(folder), &Options::default(), || {}).unwrap_err();
    assert!(matches!(error, StoreError::Folder { .. }), "{error}");
    assert!(error.to_string().contains(folder), "{error}");
}

#[test]
fn a_file_of_another_layout_is_refused() {
    let mut rig = Rig::new();
    rig.store = None;
    let folder = rig.folder.path();
    let (env, tables, _) = opening::open(folder, &Options::default(), 9).unwrap();
    let mut write = env.write_txn().unwrap();
    tables.meta.put(&mut write, b"layout", &9_u32.to_le_bytes()).unwrap();
    write.commit().unwrap();
    drop(env);
    let error = Store::open(folder, &Options::default(), || {}).unwrap_err();
    assert!(error.to_string().contains("has layout 9, this program knows 1"), "{error}");
}

/// Changes a byte wherever `text` stands in the file.
fn damage(file: &Path, text: &str) {
    let mut bytes = std::fs::read(file).unwrap();
    let places: Vec<usize> =
        (0..bytes.len()).filter(|&at| bytes[at..].starts_with(text.as_bytes())).collect();
    assert!(!places.is_empty());
    places.into_iter().for_each(|at| bytes[at] ^= 1);
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_damaged_message_is_named_and_set_aside_and_the_rest_is_served() {
    let mut rig = Rig::new();
    rig.ask([Ask::Line { line: 1, about: about("jobs") }]);
    rig.ask([put(1, "one"), put(2, "unlucky"), put(3, "three")]);
    rig.synced(4);
    let mut rig = rig.reopen(|folder| {
        damage(&lmdb::data_file(folder), "unlucky");
        let [damage] = &check(folder).unwrap().damaged[..] else { panic!("not one") };
        assert_eq!((damage.queue.as_deref(), damage.seq), (Some("jobs"), Some(2)));
    });
    rig.ask([fetch(1)]);
    assert_eq!(rig.fetched(1), (texts(&["one", "three"]), true, vec![2]));
    rig.ask([delete(2), fetch(2)]);
    assert_eq!(rig.fetched(2), (texts(&["one", "three"]), true, vec![]));
    let rig = rig.reopen(|folder| {
        let report = check(folder).unwrap();
        assert_eq!((report.lines[0].ready, &report.damaged[..]), (2, &[][..]));
        assert_eq!(report.set_aside[0].seq, Some(2));
    });
    let bytes = message("one").bytes() + message("three").bytes();
    assert_eq!(rig.lines[0].lanes[5], Load { count: 2, bytes: bytes as u64 });
}

/// A store with 3,000 messages, and its file with other bytes at some places.
fn spoiled(at: impl Fn(u64) -> Vec<u64>) -> TempDir {
    let mut rig = Rig::new();
    rig.ask([Ask::Line { line: 1, about: about("jobs") }]);
    rig.ask((1..=3_000).map(|seq| put(seq, &"x".repeat(100))));
    rig.synced(3_001);
    rig.store = None;
    let file = File::options().write(true).open(rig.data()).unwrap();
    let bytes = std::fs::read(lmdb::data_file(rig.folder.path())).unwrap();
    // Behind them there is room that was taken ahead.
    let pages = bytes.iter().rposition(|byte| *byte != 0).unwrap() as u64 / 4_096;
    for offset in at(pages) {
        file.write_all_at(&[0x77; 8], offset).unwrap();
    }
    rig.folder
}

#[rstest]
#[case::first_meta(&[16], "no meta page")]
#[case::second_meta(&[4_096 + 8], "no meta page")]
#[case::page_size(&[40], "no meta page")]
#[case::last_page(&[136, 4_096 + 136], "a last page that cannot be")]
#[case::roots(&[80, 128, 4_096 + 80, 4_096 + 128], "is outside of the file")]
fn a_file_with_damage_at_the_top_is_refused(#[case] at: &'static [u64], #[case] why: &str) {
    let folder = spoiled(|_| at.to_vec());
    let error = Store::open(folder.path(), &Options::default(), || {}).unwrap_err();
    assert!(error.to_string().contains(why), "{error}");
    assert!(error.to_string().contains("data.mdb is damaged"), "{error}");
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(lmdb::data_file(folder.path()), "my diary").unwrap();
    let error = Store::open(folder.path(), &Options::default(), || {}).unwrap_err();
    assert!(error.to_string().contains("data.mdb is damaged: it is no data file"), "{error}");
}

#[test]
fn a_file_cut_short_is_refused() {
    let folder = spoiled(|_| vec![]);
    let file = File::options().write(true).open(lmdb::data_file(folder.path())).unwrap();
    file.set_len(8 * 4_096).unwrap();
    let error = Store::open(folder.path(), &Options::default(), || {}).unwrap_err();
    assert!(error.to_string().contains("is outside of the file"), "{error}");
}

#[test]
fn of_a_file_with_damaged_pages_the_rest_is_rescued() {
    let folder = spoiled(|pages| vec![pages / 3 * 4_096, pages / 2 * 4_096]);
    let error = Store::open(folder.path(), &Options::default(), || {}).unwrap_err();
    assert!(error.to_string().contains("data.mdb is damaged: page"), "{error}");
    assert!(compact(folder.path()).is_err());
    let report = check(folder.path()).unwrap();
    assert!(!report.damaged.is_empty());
    let rescued = tempfile::tempdir().unwrap();
    let file = lmdb::data_file(rescued.path());
    assert_eq!(salvage(folder.path(), &file).unwrap().damaged, report.damaged);
    let after = check(rescued.path()).unwrap();
    assert_eq!(after.damaged, []);
    assert_eq!(after.lines[0].queue.as_deref(), Some("jobs"));
    assert_eq!(after.lines[0].ready, report.lines[0].ready);
    assert!((2_500..3_000).contains(&after.lines[0].ready), "{}", after.lines[0].ready);
    let error = salvage(folder.path(), &file).unwrap_err();
    assert!(error.to_string().contains("it is there already"), "{error}");
}

/// Damage below what is looked at before opening.
#[test]
fn a_damaged_page_that_is_read_later_fails_with_the_files_name() {
    let mut rig = Rig::with(Options { retry: Duration::from_millis(1), ..Options::default() });
    rig.ask((0..8_000).map(|seq| put(seq, &format!("{seq:01000}"))));
    rig.synced(8_000);
    let mut rig = rig.reopen(|folder| {
        let file = lmdb::data_file(folder);
        let last = format!("{:01000}", 7_000);
        let bytes = std::fs::read(&file).unwrap();
        let at = last_place(&bytes, last.as_bytes());
        let file = File::options().write(true).open(file).unwrap();
        file.write_all_at(&[0x77; 16], at / 4_096 * 4_096).unwrap();
    });
    rig.ask([fetch(1)]);
    let Told::Failed { refusal } = rig.next() else { panic!("it served what is damaged") };
    assert_eq!(refusal.code, "store_failed");
    assert!(refusal.message.contains("data.mdb"), "{}", refusal.message);
}

/// Where `part` stands last.
fn last_place(bytes: &[u8], part: &[u8]) -> u64 {
    let at = bytes.windows(part.len()).rposition(|window| window == part);
    at.expect("it is there") as u64
}

#[test]
fn a_compacted_store_has_less_room_and_the_same_messages() {
    let mut rig = Rig::new();
    rig.ask((0..3_000).map(|seq| put(seq, &"x".repeat(1_000))));
    rig.synced(3_000);
    rig.ask((1..3_000).map(delete));
    rig.synced(5_999);
    let mut rig = rig.reopen(|folder| {
        let (before, after) = compact(folder).unwrap();
        assert!(after < 1 << 17 && before > 3 << 20, "{before} to {after}");
    });
    rig.ask([put(3_000, "more"), fetch(1)]);
    assert_eq!(rig.fetched(1).0, ["x".repeat(1_000), "more".into()]);
}

/// What may be asked, with choices that are made against what there is by then.
#[derive(Clone, Debug)]
enum Step {
    Put { line: u32, lane: u8, at_ms: u64 },
    Change { nth: usize },
    Move { nth: usize, lane: u8 },
    Delete { nth: usize },
    Clear { line: u32, lane: u8 },
    Drop { line: u32 },
    About { line: u32, about: u8 },
    Fetch { line: u32, lane: u8, skip: usize, count: u32 },
    Sync,
    Reopen,
}

fn steps() -> impl Strategy<Value = Step> {
    let (line, lane) = (0..3_u32, 9..12_u8);
    prop_oneof![
        8 => (line.clone(), lane.clone(), 0..4_u64)
            .prop_map(|(line, lane, at_ms)| Step::Put { line, lane, at_ms }),
        2 => any::<usize>().prop_map(|nth| Step::Change { nth }),
        2 => (any::<usize>(), lane.clone()).prop_map(|(nth, lane)| Step::Move { nth, lane }),
        5 => any::<usize>().prop_map(|nth| Step::Delete { nth }),
        1 => (line.clone(), lane.clone()).prop_map(|(line, lane)| Step::Clear { line, lane }),
        1 => line.clone().prop_map(|line| Step::Drop { line }),
        1 => (line.clone(), any::<u8>()).prop_map(|(line, about)| Step::About { line, about }),
        3 => (line, lane, 0..3_usize, 0..9_u32)
            .prop_map(|(line, lane, skip, count)| Step::Fetch { line, lane, skip, count }),
        1 => Just(Step::Sync),
        1 => Just(Step::Reopen),
    ]
}

/// What should be in the store.
#[derive(Default)]
struct Model {
    messages: BTreeMap<Place, Arc<Message>>,
    lines: BTreeMap<u32, Bytes>,
    next_seq: u64,
    writes: u64,
    fetches: u32,
}

impl Model {
    fn nth(&self, nth: usize) -> Option<Place> {
        self.messages.keys().nth(nth % self.messages.len().max(1)).copied()
    }

    fn put(&mut self, place: Place) -> Ask {
        let message = message(&format!("{} at {}", self.next_seq, self.writes));
        self.messages.insert(place, message.clone());
        Ask::Put { place, message }
    }

    /// What a step asks.
    fn asks(&mut self, step: &Step) -> Vec<Ask> {
        match *step {
            Step::Put { line, lane, at_ms } => {
                self.next_seq += 1;
                let about = self.lines.entry(line).or_default().clone();
                vec![Ask::Line { line, about }, self.put(place(line, lane, at_ms, self.next_seq))]
            }
            Step::Change { nth } => {
                self.nth(nth).map(|place| self.put(place)).into_iter().collect()
            }
            Step::Move { nth, lane } => self.nth(nth).map_or_else(Vec::new, |from| {
                let to = Place { lane, at_ms: 9, ..from };
                self.messages.remove(&from);
                let message = message(&format!("{} moved at {}", self.next_seq, self.writes));
                self.messages.insert(to, message.clone());
                vec![Ask::Move { from, to, message }]
            }),
            Step::Delete { nth } => self.nth(nth).map_or_else(Vec::new, |place| {
                self.messages.remove(&place);
                vec![Ask::Delete { place }]
            }),
            Step::Clear { line, lane } => {
                self.messages.retain(|place, _| (place.line, place.lane) != (line, lane));
                vec![Ask::Clear { line, lane, keep: Vec::new() }]
            }
            Step::Drop { line } => {
                self.lines.remove(&line);
                self.messages.retain(|place, _| place.line != line);
                vec![Ask::Drop { line }]
            }
            Step::About { line, about } => {
                let about = Bytes::copy_from_slice(&[about]);
                self.lines.insert(line, about.clone());
                vec![Ask::Line { line, about }]
            }
            _ => vec![],
        }
    }

    fn lane(&self, line: u32, lane: u8) -> impl Iterator<Item = (Place, Arc<Message>)> {
        let all = self.messages.range(place(line, lane, 0, 0)..place(line, lane + 1, 0, 0));
        all.map(|(&place, message)| (place, message.clone()))
    }

    /// Asks for some of a lane and compares.
    fn fetch(&mut self, rig: &mut Rig, (line, lane): (u32, u8), skip: usize, count: u32) {
        self.fetches += 1;
        let fetch = self.fetches;
        let after = self.lane(line, lane).take(skip).last().map(|(at, _)| (at.at_ms, at.seq));
        rig.ask([Ask::Fetch { fetch, line, lane, after, count, bytes: u32::MAX }]);
        let (messages, end) = loop {
            match rig.next() {
                Told::Fetched { messages, end, .. } => break (messages, end),
                Told::Synced { .. } => {}
                other => panic!("{other:?}"),
            }
        };
        let skip = if after.is_some() { skip } else { 0 };
        let expected: Vec<_> = self.lane(line, lane).skip(skip).collect();
        assert_eq!(end, expected.len() <= count as usize);
        assert_eq!(messages, expected[..expected.len().min(count as usize)]);
    }

    fn told(&self, lines: &[Line]) {
        let numbers: Vec<u32> = lines.iter().map(|line| line.line).collect();
        assert_eq!(numbers, self.lines.keys().copied().collect::<Vec<_>>());
        for line in lines {
            assert_eq!(line.about, self.lines[&line.line]);
            for (number, load) in line.lanes.iter().enumerate() {
                let mut expected = Load::default();
                for (place, message) in self.lane(line.line, number as u8) {
                    expected.count += 1;
                    expected.bytes += message.bytes() as u64;
                    assert!(place.seq < line.next_seq);
                }
                assert_eq!(*load, expected);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn a_store_is_a_map_that_outlives_the_process(
        steps in prop::collection::vec(steps(), 1..120)
    ) {
        let (mut rig, mut model) = (Rig::new(), Model::default());
        for step in steps.iter().chain(&[Step::Reopen]) {
            let asks = model.asks(step);
            model.writes += asks.len() as u64;
            rig.ask(asks);
            match *step {
                Step::Fetch { line, lane, skip, count } => {
                    model.fetch(&mut rig, (line, lane), skip, count);
                }
                Step::Sync => {
                    rig.ask([Ask::Drop { line: 99 }]);
                    model.writes += 1;
                    rig.synced(model.writes);
                }
                Step::Reopen => {
                    rig = rig.reopen(|folder| {
                        let report = check(folder).unwrap();
                        assert_eq!(report.damaged, []);
                    });
                    model.told(&rig.lines);
                    model.writes = 0;
                }
                _ => {}
            }
        }
        for line in 0..3 {
            (9..12).for_each(|lane| model.fetch(&mut rig, (line, lane), 0, 1_000));
        }
    }
}

/// Deletes are gathered: those that do not rise, are not there, are put again in between, or have
/// others between them are as if each had been done by itself.
#[test]
fn many_deletes_are_as_one_after_the_other() {
    let mut rig = Rig::new();
    rig.ask([Ask::Line { line: 1, about: about("jobs") }]);
    rig.ask((0..100).map(|seq| put(seq, &seq.to_string())));
    rig.ask([fetch(1)]);
    let mut left: Vec<u64> = (0..100).collect();
    let gone: Vec<u64> = (0..20).chain([50, 3, 49, 200, 30, 90]).chain(91..=99).collect();
    left.retain(|seq| !gone.contains(seq));
    rig.ask(gone.into_iter().map(delete));
    rig.ask([delete(20), put(20, "again"), delete(21), put(100, "new"), delete(100), fetch(2)]);
    left.retain(|seq| *seq != 21);
    rig.fetched(1);
    let texts = left.iter().map(|seq| if *seq == 20 { "again".into() } else { seq.to_string() });
    let texts: Vec<String> = texts.collect();
    assert_eq!(rig.fetched(2).0, texts);
    let rig = rig.reopen(|_| {});
    assert_eq!(rig.lines[0].lanes[5].count, left.len() as u64);
    let bytes: usize = texts.iter().map(|text| message(text).bytes()).sum();
    assert_eq!(rig.lines[0].lanes[5].bytes, bytes as u64);
}

/// What stays of a lane that is cleared stays in the same piece: it is there after a loss of power
/// whenever the lane is clear.
#[test]
fn what_stays_of_a_lane_counts_as_it_did() {
    let mut rig = Rig::new();
    rig.ask([Ask::Line { line: 1, about: about("jobs") }]);
    rig.ask((0..50).map(|seq| put(seq, "stays")));
    rig.ask([delete(7), clear(&[3, 7, 9]), put(50, "new"), fetch(1)]);
    assert_eq!(rig.fetched(1).0, texts(&["stays", "stays", "stays", "new"]));
    let rig = rig.reopen(|_| {});
    assert_eq!(rig.lines[0].lanes[5].count, 4);
    assert_eq!(rig.lines[0].next_seq, 51);
}
