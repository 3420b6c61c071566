//! Routes come and go, and what is told of them.
//!
//! All routes are one row in the store, written anew with each change, so that a change is there
//! whole or not at all. Should the store fail before it is safe, the table is what the store then
//! says.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};
use smol_str::SmolStr;

use super::super::bindings::Bound;
use super::super::{Output, Queues, Settings};
use super::RouteSettings;
use super::route::{Route, Stored};
use crate::base::limits::{ROUTE_TABLE_BYTES, ROUTES as MOST};
use crate::base::{Code, Origin, Out, Refusal};
use crate::store::{Ask, ROUTES};
use crate::values::{Body, Value};

/// The table as it is written.
#[derive(Serialize)]
struct Table<'a> {
    table_version: u64,
    routes: Vec<&'a RawValue>,
}

/// The table as it is read.
#[derive(Default, Deserialize)]
struct StoredTable {
    table_version: u64,
    routes: Vec<Stored>,
}

impl Queues {
    /// A route is to be there, in the place of the one of that name.
    pub(in super::super) fn add_route(
        &mut self,
        origin: Origin,
        (name, settings): (SmolStr, RouteSettings),
        if_version: Option<u64>,
        out: &mut Out<Output>,
    ) {
        let outcome = self.put_route(name, settings, if_version, out);
        self.route_changed(origin, outcome, out);
    }

    fn put_route(
        &mut self,
        name: SmolStr,
        settings: RouteSettings,
        if_version: Option<u64>,
        out: &mut Out<Output>,
    ) -> Result<Json, Refusal> {
        self.routes_can_change(&name, if_version)?;
        let version = self.routes.version + 1;
        let route = Route::new(Stored { route: name.clone(), version, settings })?;
        let before = self.routes.find(&name).ok();
        if before.is_none() && self.routes.len() >= MOST {
            return Err(Refusal::new(Code::Busy, format!("there are {MOST} routes")));
        }
        let old = before.map_or(0, |slot| self.routes.slots[slot as usize].text.get().len());
        if self.routes.bytes - old + route.text.get().len() > ROUTE_TABLE_BYTES {
            let message = format!("the table of routes has {ROUTE_TABLE_BYTES} bytes at most");
            return Err(Refusal::new(Code::Busy, message));
        }
        self.make_queues(&route.settings.to, out)?;
        if let Some(slot) = before {
            self.drop_route(slot);
        }
        let told = json!({ "route": name, "version": version, "table_version": version });
        self.hold_route(route);
        self.routes.version = version;
        self.tell_routes(out);
        Ok(told)
    }

    /// Whether there is a table to change now, and it is as the caller thinks.
    fn routes_can_change(&self, name: &str, if_version: Option<u64>) -> Result<(), Refusal> {
        self.failed.clone().map_or(Ok(()), Err)?;
        self.routes.expect(name, if_version)
    }

    /// Makes the queues of a route that are not there: all of them, or none.
    fn make_queues(&mut self, names: &[SmolStr], out: &mut Out<Output>) -> Result<(), Refusal> {
        let missing = self.missing(names);
        if let Some(name) = missing.first()
            && !self.rules.auto_create
        {
            let message = format!("there is no queue {name}");
            return Err(Refusal::field(Code::UnknownQueue, "to", message));
        }
        if self.queues.len() + missing.len() > self.limits.queues {
            let message = format!("{} queues are declared", self.limits.queues);
            return Err(Refusal::new(Code::Busy, message));
        }
        for name in missing {
            self.create(name, Settings::default(), out)?;
        }
        Ok(())
    }

    /// A route is to be gone.
    pub(in super::super) fn remove_route(
        &mut self,
        origin: Origin,
        name: &str,
        if_version: Option<u64>,
        out: &mut Out<Output>,
    ) {
        let found = self.routes_can_change(name, if_version).and_then(|()| self.routes.find(name));
        let outcome = found.map(|slot| {
            self.drop_route(slot);
            self.routes.version += 1;
            self.tell_routes(out);
            json!({ "route": name, "table_version": self.routes.version })
        });
        self.route_changed(origin, outcome, out);
    }

    /// Answers a change once it is safe.
    fn route_changed(
        &mut self,
        origin: Origin,
        outcome: Result<Json, Refusal>,
        out: &mut Out<Output>,
    ) {
        let stored = outcome.is_ok();
        let outcome = outcome.map(|told| Body::plain(Value::from_serialize(&told)));
        self.when_safe(stored, Output::Done { origin, outcome }, out);
    }

    /// Tells the table, once what it says is safe.
    pub(in super::super) fn list_routes(&mut self, origin: Origin, out: &mut Out<Output>) {
        if let Some(refusal) =
            self.failed.as_ref().filter(|_| !self.confirm.is_safe(self.routes.asked_at))
        {
            return out.push(Output::Done { origin, outcome: Err(refusal.clone()) });
        }
        let row = |slot: &u32| {
            let route = &self.routes.slots[*slot as usize];
            let mut row: Json = serde_json::from_str(route.text.get()).unwrap_or_default();
            row["counters"] = json!(route.counters);
            row
        };
        let rows: Vec<Json> = self.routes.by_name.values().map(row).collect();
        let told = json!({ "table_version": self.routes.version, "routes": rows });
        let outcome = Ok(Body::plain(Value::from_serialize(&told)));
        self.confirm.hold(self.routes.asked_at, Output::Done { origin, outcome }, out);
    }

    fn hold_route(&mut self, route: Route) {
        let (name, bytes) = (route.name.clone(), route.text.get().len());
        let slot = self.routes.slots.vacant_key() as u32;
        self.bindings.add(&route.settings.bind, Bound::Route(slot));
        self.routes.bytes += bytes;
        self.routes.slots.insert(route);
        self.routes.by_name.insert(name, slot);
    }

    fn drop_route(&mut self, slot: u32) {
        let route = self.routes.slots.remove(slot as usize);
        self.bindings.remove(&route.settings.bind, Bound::Route(slot));
        self.routes.bytes -= route.text.get().len();
        self.routes.by_name.remove(&route.name);
    }

    /// Lets the store know the table.
    fn tell_routes(&mut self, out: &mut Out<Output>) {
        let text = |slot: &u32| &*self.routes.slots[*slot as usize].text;
        let routes = self.routes.by_name.values().map(text).collect();
        let table = Table { table_version: self.routes.version, routes };
        let about = serde_json::to_vec(&table).expect("a table is JSON");
        self.ask(Ask::Line { line: ROUTES, about: about.into() }, out);
        self.routes.asked_at = self.confirm.writes();
    }

    /// The table is what the store has.
    pub(in super::super) fn routes_found(&mut self, about: Option<&Bytes>) {
        self.routes.asked_at = 0;
        let read = about.map(|about| serde_json::from_slice::<StoredTable>(about));
        let table = read.transpose().unwrap_or_else(|_| {
            self.counters.damaged += 1;
            None
        });
        let table = table.unwrap_or_default();
        if table.table_version == self.routes.version {
            return;
        }
        let slots: Vec<u32> = self.routes.by_name.values().copied().collect();
        for slot in slots {
            self.drop_route(slot);
        }
        self.routes.version = table.table_version;
        for stored in table.routes {
            match Route::new(stored) {
                Ok(route) => self.hold_route(route),
                Err(_) => self.counters.damaged += 1,
            }
        }
    }
}
