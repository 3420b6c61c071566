//! What every system stands on: ids, time, deadlines, refusals, limits.

pub(crate) mod chunks;
pub mod deadlines;
pub mod ids;
pub mod latency;
pub mod limits;
pub mod map;
pub mod names;
pub mod out;
pub mod refusal;
pub mod rng;
pub mod time;

pub use deadlines::{Deadlines, TimerId};
pub use ids::{CallId, GraphId, Ids, JobId, Origin, PeerId, RunId, WaitId};
pub use latency::Latency;
pub use limits::Limits;
pub use map::{Map, Set, seeded};
pub use out::Out;
pub use refusal::{Code, Culprit, Refusal};
pub use rng::Rng;
pub use time::Time;
