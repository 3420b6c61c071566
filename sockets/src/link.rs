//! What links between brokers are made of: the bridge where they are agreed on, those who ask at
//! it, and a PAIR for each session.

pub mod bridge;
pub mod dialler;
pub mod frames;
pub mod pair;

pub use bridge::Bridge;
pub use dialler::{Answer, Dialler};
pub use pair::Pair;

/// The host in an address: `tcp://[::1]:7404` has `[::1]`. None where there is none, as in `ipc`.
#[must_use]
pub fn host(address: &str) -> Option<&str> {
    let (host, _) = address.strip_prefix("tcp://")?.rsplit_once(':')?;
    Some(host)
}

/// An endpoint as another broker names it, reached under the host of an address of that broker: the
/// other one does not know which of its own it is, where it has bound all of them.
#[must_use]
pub fn reached(endpoint: &str, address: &str) -> String {
    let port = endpoint.rsplit_once(':').map(|(_, port)| port);
    match (host(endpoint), host(address), port) {
        (Some("0.0.0.0" | "[::]" | "*"), Some(host), Some(port)) => format!("tcp://{host}:{port}"),
        _ => endpoint.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("tcp://0.0.0.0:7404", "tcp://far:7400", "tcp://far:7404")]
    #[case("tcp://[::]:7404", "tcp://[fe80::1]:7400", "tcp://[fe80::1]:7404")]
    #[case("tcp://10.0.0.1:7404", "tcp://far:7400", "tcp://10.0.0.1:7404")]
    #[case("ipc:///run/m.bridge", "ipc:///run/m.door", "ipc:///run/m.bridge")]
    #[case("nonsense", "tcp://far:7400", "nonsense")]
    fn a_bridge_is_where_the_door_was_reached(
        #[case] endpoint: &str,
        #[case] address: &str,
        #[case] expected: &str,
    ) {
        assert_eq!(reached(endpoint, address), expected);
    }
}
