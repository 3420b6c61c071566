//! A store in virtual time behind the two enums the rules know: it takes its time, commits what has
//! gathered in one piece, and fails as disks do.
//!
//! What is not synced may be lost when a commit fails or the broker is killed; it may also be there
//! after all. Either way all of a commit is, or nothing of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use mpreg_patterns::base::{Code, Refusal, Rng, RunId};
use mpreg_patterns::store::{Ask, LANE_DEAD, Line, Load, Message, Place, Told};

use crate::peers::MS;
use crate::workload::one_in;

/// Asks of one commit, at most: few, so that what belongs together is often parted.
const BATCH: usize = 48;

/// What is on the disk.
#[derive(Clone, Debug, Default)]
struct Disk {
    lines: BTreeMap<u32, (Bytes, u64)>,
    messages: BTreeMap<Place, Record>,
}

#[derive(Clone, Debug)]
struct Record {
    message: Arc<Message>,
    damaged: bool,
}

/// How a commit ends.
#[derive(Clone, Debug)]
enum End {
    Synced,
    /// Not told to be safe, and there all the same if `lasts`.
    Fails {
        refusal: Refusal,
        lasts: bool,
    },
}

#[derive(Debug)]
struct Commit {
    done_ns: u64,
    draft: Disk,
    writes: u64,
    end: End,
}

/// What went wrong, and how much did not.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Wear {
    pub(crate) syncs: u64,
    pub(crate) failures: u64,
    pub(crate) full: u64,
    pub(crate) torn: u64,
}

impl Wear {
    pub(crate) const fn add(&mut self, other: &Self) {
        self.syncs += other.syncs;
        self.failures += other.failures;
        self.full += other.full;
        self.torn += other.torn;
    }
}

/// The disk of one simulation. It outlives the broker's lives.
#[derive(Debug)]
pub(crate) struct Store {
    rng: Rng,
    /// One in so many commits goes wrong; none does where it is 0.
    faults: usize,
    synced: Disk,
    commit: Option<Commit>,
    asked: VecDeque<(u64, Ask)>,
    told: VecDeque<(u64, Told)>,
    /// Of what is open, and of what the broker knows to be.
    epoch: u64,
    heard: u64,
    writes: u64,
    /// When it is opened again, if it has failed.
    opens_ns: Option<u64>,
    full_until_ns: u64,
    /// Messages that cannot be read any more, each once.
    pub(crate) damaged: Vec<Arc<Message>>,
    pub(crate) wear: Wear,
}

impl Store {
    pub(crate) fn new(seed: u64, faults: usize) -> Self {
        Self {
            rng: Rng::new(seed),
            faults,
            synced: Disk::default(),
            commit: None,
            asked: VecDeque::new(),
            told: VecDeque::new(),
            epoch: 0,
            heard: 0,
            writes: 0,
            opens_ns: None,
            full_until_ns: 0,
            damaged: Vec::new(),
            wear: Wear::default(),
        }
    }

    /// From now on, one in so many commits goes wrong.
    pub(crate) const fn wear_out(&mut self, faults: usize) {
        self.faults = faults;
    }

    /// Nothing goes wrong any more, and there is room.
    pub(crate) const fn settle(&mut self) {
        self.faults = 0;
        self.full_until_ns = 0;
    }

    /// The broker was killed: what was being written may have got there. What a new one finds.
    pub(crate) fn open(&mut self) -> Told {
        if let Some(commit) = self.commit.take()
            && one_in(&mut self.rng, 2)
        {
            self.synced = commit.draft;
        }
        self.asked.clear();
        self.told.clear();
        self.opens_ns = None;
        self.begin_anew();
        self.heard = self.epoch;
        Told::Opened { lines: self.lines() }
    }

    fn begin_anew(&mut self) {
        self.epoch += 1;
        self.writes = 0;
    }

    pub(crate) fn ask(&mut self, ask: Ask) {
        self.asked.push_back((self.heard, ask));
    }

    /// What it tells now.
    pub(crate) fn told(&mut self, now_ns: u64) -> Option<Told> {
        self.work(now_ns);
        self.told.front().filter(|(at_ns, _)| *at_ns <= now_ns)?;
        let (_, told) = self.told.pop_front()?;
        if matches!(told, Told::Opened { .. }) {
            self.heard = self.epoch;
        }
        Some(told)
    }

    /// Whether the broker has what is in it, and can write to it.
    pub(crate) const fn is_open(&self) -> bool {
        self.opens_ns.is_none() && self.heard == self.epoch
    }

    /// When it next has something to do or to tell.
    pub(crate) fn wake_at(&self) -> Option<u64> {
        let told = self.told.front().map(|(at_ns, _)| *at_ns);
        let commit = self.commit.as_ref().map(|commit| commit.done_ns);
        let idle = self.commit.is_none() && self.opens_ns.is_none() && !self.asked.is_empty();
        [told, commit, self.opens_ns, idle.then_some(0)].into_iter().flatten().min()
    }

    fn work(&mut self, now_ns: u64) {
        if let Some(commit) = self.commit.take_if(|commit| commit.done_ns <= now_ns) {
            self.finish(now_ns, commit);
        }
        if self.opens_ns.is_some_and(|at_ns| at_ns <= now_ns) {
            self.asked.clear();
            // Opening shows with a small write that there is room.
            if self.full_until_ns > now_ns && one_in(&mut self.rng, 2) {
                self.opens_ns = Some(now_ns + 1_000 * MS);
                return;
            }
            self.opens_ns = None;
            self.begin_anew();
            self.told.push_back((now_ns, Told::Opened { lines: self.lines() }));
        }
        if self.commit.is_none() && self.opens_ns.is_none() {
            self.begin(now_ns);
        }
    }

    fn finish(&mut self, now_ns: u64, commit: Commit) {
        match commit.end {
            End::Synced => {
                self.wear.syncs += 1;
                self.synced = commit.draft;
                if commit.writes > self.writes {
                    self.writes = commit.writes;
                    self.told.push_back((now_ns, Told::Synced { writes: self.writes }));
                }
                self.tear();
            }
            End::Fails { refusal, lasts } => {
                self.wear.failures += 1;
                self.wear.full += u64::from(refusal.is(Code::StoreFull));
                if lasts {
                    self.synced = commit.draft;
                }
                // What was read is told by the time it is known that nothing was written.
                self.told.push_back((now_ns, Told::Failed { refusal }));
                self.opens_ns = Some(now_ns + MS * (1 + self.rng.below(1_000) as u64));
            }
        }
    }

    /// Begins to write what has gathered.
    fn begin(&mut self, now_ns: u64) {
        let epoch = self.epoch;
        self.asked.retain(|(of, _)| *of == epoch);
        let most = 1 + self.rng.below(BATCH);
        let batch: Vec<Ask> =
            self.asked.drain(..most.min(self.asked.len())).map(|(_, ask)| ask).collect();
        if batch.is_empty() {
            return;
        }
        let (mut draft, mut writes) = (self.synced.clone(), self.writes);
        let took_ns = self.takes_ns();
        let end = self.end(now_ns, &batch);
        for ask in batch {
            writes += u64::from(!matches!(ask, Ask::Fetch { .. }));
            if let Some(told) = self.apply(&mut draft, ask) {
                // Before the sync: what is read may never be written.
                self.told.push_back((now_ns + took_ns / 2, told));
            }
        }
        self.commit = Some(Commit { done_ns: now_ns + took_ns, draft, writes, end });
    }

    fn goes_wrong(&mut self) -> bool {
        self.faults > 0 && one_in(&mut self.rng, self.faults)
    }

    fn takes_ns(&mut self) -> u64 {
        if self.goes_wrong() {
            return MS * (50 + self.rng.below(1_500) as u64);
        }
        MS / 4 * (1 + self.rng.below(16) as u64)
    }

    fn end(&mut self, now_ns: u64, batch: &[Ask]) -> End {
        if self.goes_wrong() {
            self.full_until_ns = now_ns + MS * (100 + self.rng.below(2_500) as u64);
        }
        let puts = batch
            .iter()
            .any(|ask| matches!(ask, Ask::Put { .. } | Ask::Move { .. } | Ask::Line { .. }));
        if puts && self.full_until_ns > now_ns {
            let refusal = Refusal::new(Code::StoreFull, "no space left");
            return End::Fails { refusal, lasts: false };
        }
        if self.goes_wrong() {
            let reads = batch.iter().any(|ask| matches!(ask, Ask::Fetch { .. }));
            let why = if reads { "a damaged page" } else { "the sync failed" };
            let refusal = Refusal::new(Code::StoreFailed, why);
            return End::Fails { refusal, lasts: one_in(&mut self.rng, 3) };
        }
        End::Synced
    }

    /// A page is torn: what one record holds cannot be read again.
    fn tear(&mut self) {
        if !self.goes_wrong() || self.synced.messages.is_empty() {
            return;
        }
        let nth = self.rng.below(self.synced.messages.len());
        if let Some(record) = self.synced.messages.values_mut().nth(nth) {
            record.damaged = true;
            self.wear.torn += 1;
            let message = record.message.event.message;
            if self.damaged.iter().all(|of| of.event.message != message) {
                self.damaged.push(record.message.clone());
            }
        }
    }

    fn apply(&mut self, disk: &mut Disk, ask: Ask) -> Option<Told> {
        let Disk { lines, messages } = disk;
        match ask {
            Ask::Line { line, about } => {
                lines.entry(line).or_insert_with(|| (Bytes::new(), 1)).0 = about;
            }
            Ask::Drop { line } => {
                lines.remove(&line);
                messages.retain(|place, _| place.line != line);
            }
            Ask::Put { place, message } => {
                let (_, next_seq) = lines.get_mut(&place.line).expect("a line");
                *next_seq = (*next_seq).max(place.seq + 1);
                messages.insert(place, Record { message, damaged: false });
            }
            Ask::Move { from, to, message } => {
                let (_, next_seq) = lines.get_mut(&to.line).expect("a line");
                *next_seq = (*next_seq).max(to.seq + 1);
                messages.remove(&from);
                messages.insert(to, Record { message, damaged: false });
            }
            Ask::Delete { place } => drop(messages.remove(&place)),
            Ask::Clear { line, lane, keep } => {
                messages.retain(|place, _| (place.line, place.lane) != (line, lane));
                let keep = keep.into_iter();
                messages.extend(
                    keep.map(|(place, message)| (place, Record { message, damaged: false })),
                );
            }
            Ask::Fetch { fetch, line, lane, after, count, .. } => {
                // Few at a time, as if they were large.
                let count = (count as usize).min(1 + self.rng.below(8));
                return Some(read(messages, fetch, (line, lane), after, count));
            }
        }
        None
    }

    fn lines(&self) -> Vec<Line> {
        let line = |(&line, (about, next_seq)): (&u32, &(Bytes, u64))| {
            let mut lanes = [Load::default(); LANE_DEAD as usize + 1];
            for (place, record) in self.synced.messages.iter().filter(|of| of.0.line == line) {
                lanes[place.lane as usize].count += 1;
                lanes[place.lane as usize].bytes += record.message.bytes() as u64;
            }
            Line { line, about: about.clone(), lanes, next_seq: *next_seq }
        };
        self.synced.lines.iter().map(line).collect()
    }

    /// Of each copy of a message that is safe, the queue and group, and whether it is dead.
    pub(crate) fn copies(&self, message: RunId) -> Vec<(String, String, bool)> {
        let of = self.synced.messages.iter();
        let of = of.filter(|(_, record)| record.message.event.message == message);
        of.map(|(place, _)| {
            let (queue, group) = self.line(place.line);
            (queue, group, place.lane == LANE_DEAD)
        })
        .collect()
    }

    /// Queue and group of a line, as far as they are safe.
    pub(crate) fn line(&self, line: u32) -> (String, String) {
        let Some((about, _)) = self.synced.lines.get(&line) else { return <_>::default() };
        let about: serde_json::Value = serde_json::from_slice(about).expect("JSON");
        let text = |field: &str| about[field].as_str().unwrap_or_default().to_owned();
        (text("queue"), text("group"))
    }

    /// Messages on the disk, and how many of them are dead letters.
    pub(crate) fn holds(&self, queue: &str) -> (u64, u64) {
        let of = self.synced.messages.keys().filter(|place| self.line(place.line).0 == queue);
        let dead = of.clone().filter(|place| place.lane == LANE_DEAD);
        (of.clone().count() as u64, dead.count() as u64)
    }
}

fn read(
    messages: &mut BTreeMap<Place, Record>,
    fetch: u32,
    (line, lane): (u32, u8),
    after: Option<(u64, u64)>,
    count: usize,
) -> Told {
    let behind = |place: &Place| {
        (place.line, place.lane) == (line, lane) && Some((place.at_ms, place.seq)) > after
    };
    let places: Vec<Place> = messages.keys().filter(|place| behind(place)).copied().collect();
    let (mut found, mut damaged) = (Vec::new(), Vec::new());
    for place in places.iter().take(count) {
        let record = &messages[place];
        if record.damaged {
            messages.remove(place);
            damaged.push(*place);
        } else {
            found.push((*place, record.message.clone()));
        }
    }
    Told::Fetched { fetch, messages: found, end: places.len() <= count, damaged }
}
