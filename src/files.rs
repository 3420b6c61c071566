//! How many files the process may have open: each connection is one.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The limit, and what it was before it was raised. None is no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Files {
    /// What it is now.
    pub limit: Option<u64>,
    /// What whoever started the process gave it.
    pub was: Option<u64>,
}

/// Raises the limit as far as the process may. Where it may not, it stays.
pub fn raise() -> Files {
    let Rlimit { current: was, maximum } = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    if let Err(error) = raised {
        log::warn!("the limit to open files stays as it was: {error}");
    }
    Files { limit: getrlimit(Resource::Nofile).current, was }
}

impl Files {
    /// As people read it: `20,000`, `20,000, raised from 1,024`.
    #[must_use]
    pub fn in_words(self) -> String {
        let limit = in_words(self.limit);
        if self.limit == self.was {
            return limit;
        }
        format!("{limit}, raised from {}", in_words(self.was))
    }
}

fn in_words(limit: Option<u64>) -> String {
    let Some(limit) = limit else { return "no limit".to_owned() };
    let digits = limit.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(Some(20_000), Some(1_024), "20,000, raised from 1,024")]
    #[case(Some(512), Some(512), "512")]
    #[case(None, Some(1_048_576), "no limit, raised from 1,048,576")]
    fn what_the_banner_says(
        #[case] limit: Option<u64>,
        #[case] was: Option<u64>,
        #[case] told: &str,
    ) {
        assert_eq!(Files { limit, was }.in_words(), told);
    }
}
