//! Audits: what the broker says of topics, against the account.

use std::collections::BTreeSet;

use mpreg_patterns::base::Time;
use serde_json::Value as Json;

use super::Account;
use crate::spelling::is_wide;

impl Account {
    /// Compares what `mpreg.topics` says, while nothing is left to do.
    pub(crate) fn audit(&mut self, now: Time, told: &Json) {
        self.tally.audits += 1;
        let rows = told["top"].as_array().expect("rows");
        let mut seen = BTreeSet::new();
        for row in rows {
            let pattern = row["pattern"].as_str().expect("a pattern");
            seen.insert(pattern.to_owned());
            self.audit_row(pattern, row);
        }
        for (text, pattern) in &self.patterns {
            let waits = self.waits.values().any(|wait| wait.normal == *text);
            assert!(pattern.holders == 0 || waits || seen.contains(text), "{text} is not held");
        }
        assert_eq!(told["patterns"], rows.len(), "patterns are counted");
        let count = |name: &str| told["counters"][name].as_u64().expect("a count");
        assert_eq!(count("delivered"), self.delivered, "deliveries are counted");
        assert_eq!(count("missed"), self.missed, "what was missed is counted");
        assert!(count("published") >= self.facts.len() as u64, "events are counted");
        assert_eq!(count("refused"), 0, "nothing was refused");
        let logs = told["logs"].as_array().expect("logs");
        assert_eq!(logs.len(), self.logs.len(), "one log for each rule");
        self.logs.iter_mut().zip(logs).for_each(|(log, told)| log.audit(now, told));
    }

    fn audit_row(&self, text: &str, row: &Json) {
        let Some(pattern) = self.patterns.get(text) else { panic!("nobody holds {row}") };
        assert_eq!(row["peers"], self.holders(text), "{row}");
        let of_text = self.texts.values().filter(|held| held.normal == text);
        assert_eq!(row["sockets"], of_text.map(|held| held.sockets).sum::<u32>(), "{row}");
        let waits = || self.waits.values().filter(|wait| wait.normal == text);
        let (all, calls) = (waits().count(), waits().filter(|wait| !wait.is_graph).count());
        let waiting = row["waiting"].as_u64().expect("a number") as usize;
        assert!((calls..=all).contains(&waiting), "{calls} to {all} wait: {row}");
        if !pattern.unsure && !is_wide(text) {
            assert_eq!(row["dropped"], pattern.dropped, "{row}");
        }
    }

    /// Everybody is gone: what is left is what rules keep.
    pub(crate) fn assert_left(&self, told: &Json) {
        assert_eq!(told["patterns"], self.logs.len(), "patterns are left: {told}");
        assert!(self.waits.is_empty() && self.texts.is_empty(), "somebody is left");
        for row in told["top"].as_array().expect("rows") {
            assert_eq!(row["kept"], true, "{row}");
        }
    }
}
