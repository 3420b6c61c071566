//! What a worker's driver does with runs: begins them, and answers each once.

use std::sync::Arc;
use std::time::{Duration, Instant};

use mpreg_patterns::base::{Map, Refusal, RunId};
use mpreg_patterns::ops::{Offer, Request, Run};
use smol_str::SmolStr;
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use super::super::Error;
use super::super::connection::{Command, Lane};
use super::super::worker::{Handler, Job, Outcome};
use super::Driver;

/// What a worker does.
pub(in crate::client) struct Serving {
    pub(in crate::client) offer: Offer,
    pub(in crate::client) handlers: Map<SmolStr, Handler>,
    pub(in crate::client) in_hand: Map<RunId, AbortHandle>,
    pub(in crate::client) leaving: bool,
    pub(in crate::client) ended: Option<oneshot::Sender<Result<(), Error>>>,
}

impl Driver {
    /// Tells the broker what this worker offers.
    pub(super) fn offer(&mut self) {
        self.offered = Instant::now();
        if let Some(serving) = &self.serving {
            let offer = Box::new(serving.offer.clone());
            let _ = self.put(&Request::Offer(offer));
        }
    }

    pub(super) fn refused(&mut self, op: Option<&str>, error: Refusal) {
        let Some(serving) = &mut self.serving else { return };
        if op == Some("offer")
            && let Some(ended) = serving.ended.take()
        {
            let _ = ended.send(Err(Error::Refused(Box::new(error))));
        }
    }

    /// The broker says goodbye: because this worker did, or because it goes down itself.
    pub(super) fn bye(&mut self) {
        let Some(serving) = &mut self.serving else { return };
        if serving.leaving
            && let Some(ended) = serving.ended.take()
        {
            let _ = ended.send(Ok(()));
        }
    }

    pub(super) fn cancel(&mut self, run: RunId) {
        let Some(serving) = &mut self.serving else { return };
        // A run that has been answered already is not there any more.
        if let Some(task) = serving.in_hand.remove(&run) {
            task.abort();
        }
    }

    pub(super) fn run_one(&mut self, run: Run) {
        let Some(serving) = &mut self.serving else { return };
        match serving.handlers.get(&run.fun).cloned() {
            Some(Handler::Inline(function)) => {
                let outcome = function(&run);
                self.answers.push(outcome_of(run.id, outcome));
            }
            Some(Handler::Task(function)) => {
                let (id, lane) = (run.id, self.lane.clone());
                let deadline = Duration::from_millis(run.deadline_ms);
                let task = function(Job { run, lane: lane.clone() });
                let mut answer = AnswerOnce { lane, run: Some(id) };
                let task = tokio::spawn(async move {
                    let outcome = tokio::time::timeout(deadline, task).await;
                    let late =
                        || Err(Refusal::by_worker(Some("timeout"), "past its deadline", false));
                    answer.give(outcome.unwrap_or_else(|_| late()));
                });
                serving.in_hand.insert(id, task.abort_handle());
            }
            None => {
                let message = format!("this worker does not offer {}", run.fun);
                let error = Box::new(Refusal::by_worker(None, &message, false));
                self.answers.push(Request::Failed { run: run.id, error });
            }
        }
    }

    pub(super) fn answered(&mut self, run: RunId) {
        if let Some(serving) = &mut self.serving {
            serving.in_hand.remove(&run);
        }
    }
}

/// Answers a run exactly once, also when its task is aborted or panics.
struct AnswerOnce {
    lane: Arc<Lane>,
    run: Option<RunId>,
}

impl AnswerOnce {
    fn give(&mut self, outcome: Outcome) {
        if let Some(run) = self.run.take() {
            self.lane.push(Command::Tell(outcome_of(run, outcome)));
        }
    }
}

impl Drop for AnswerOnce {
    fn drop(&mut self) {
        let error = if std::thread::panicking() {
            Refusal::by_worker(None, "the function panicked", false)
        } else {
            Refusal::by_worker(Some("cancelled"), "stopped as it was told", false)
        };
        self.give(Err(error));
    }
}

fn outcome_of(run: RunId, outcome: Outcome) -> Request {
    match outcome {
        Ok(body) => Request::Result { run, body: Box::new(body) },
        Err(error) => Request::Failed { run, error: Box::new(error) },
    }
}
