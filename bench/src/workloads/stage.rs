//! The processes of one measurement, set up afresh for every window: no contender inherits
//! another's warm caches, grown tables or half-read sockets, and none is there while another runs.

use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, process};

use serde::de::DeserializeOwned;

use crate::Outcome;
use crate::peers::rust;
use crate::process::Process;
use crate::role::{HubKind, PeerKind, Place, Ready, Role};
use crate::tally::Watch;

/// How long a process may take to be ready.
pub(super) const START: Duration = Duration::from_secs(15);

/// A hub and a worker that are ready for a client. Dropping it ends both, the worker first, so
/// that it does not complain about the hub; the folder goes when nobody uses it any more.
pub(crate) struct Stage {
    worker: Process,
    /// The broker beyond the hub, if there is one.
    _far: Option<(Process, Folder)>,
    hub: Process,
    place: Place,
    _data: Folder,
}

impl Stage {
    /// Starts the hub, then the worker.
    pub(crate) fn set(kind: HubKind, peers: PeerKind, credit: u32) -> Outcome<Self> {
        Self::of(Folder::new(), kind, peers, credit)
    }

    /// The same beside another one, with its data in a folder of its own.
    pub(crate) fn within(
        place: &Path,
        kind: HubKind,
        peers: PeerKind,
        credit: u32,
    ) -> Outcome<Self> {
        Self::of(Folder::within(place), kind, peers, credit)
    }

    fn of(data: Folder, kind: HubKind, peers: PeerKind, credit: u32) -> Outcome<Self> {
        let hub = Process::start(&Role::Hub { kind, data: data.0.clone() })?;
        let mut place: Place = hub.hear(START)?;
        let mut far = None;
        if kind == HubKind::OneHop {
            let folder = Folder::within(&data.0);
            let to = place.clients.clone();
            let process = Process::start(&Role::Far { to, data: folder.0.clone() })?;
            let beyond: Place = process.hear(START)?;
            place.workers = beyond.workers;
            far = Some((process, folder));
        }
        let at = place.workers.clone();
        let worker = Process::start(&Role::Worker { kind: peers, at, credit })?;
        let Ready {} = worker.hear(START)?;
        if far.is_some() {
            // What is offered there is known here in a moment.
            rust::block_on(async { rust::connect(&place.clients).await.map(drop) })?;
        }
        Ok(Self { worker, _far: far, hub, place, _data: data })
    }

    /// Where clients connect.
    pub(crate) fn at(&self) -> String {
        self.place.clients.clone()
    }

    /// The pids a client reads the usage of.
    pub(crate) fn watch(&self) -> Watch {
        Watch { hub: self.hub.pid(), worker: self.worker.pid() }
    }

    /// Runs a client to its end and returns what it saw.
    pub(crate) fn play<T: DeserializeOwned>(
        &self,
        client: &Role,
        patience: Duration,
    ) -> Outcome<T> {
        Process::start(client)?.hear(patience)
    }
}

/// A folder for one hub, removed with all that is in it when dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        Self::within(&env::temp_dir())
    }

    /// One in another folder.
    pub(crate) fn within(place: &Path) -> Self {
        Self(place.join(format!("mpreg-bench-{}", process::id())))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Fails where the hub never made it.
        let _ = fs::remove_dir_all(&self.0);
    }
}
