//! What the built-ins of other brokers take.

use smol_str::SmolStr;

use super::queues::{any_name, name};
use super::topics::missing;
use super::{bad_args, kwargs};
use crate::base::{Code, Refusal};
use crate::federation::{Fact, Names};
use crate::node::LinkTask;
use crate::ops::Call;
use crate::values::Cursor;

/// A call about other brokers, its arguments read.
#[derive(Debug)]
pub enum FederationAsk {
    /// Every broker that is known.
    Nodes,
    /// The way to one of them.
    Explain {
        /// Its name.
        node: SmolStr,
        /// Whether this name may cross, if one is given.
        name: Option<SmolStr>,
    },
    /// Every link.
    Links,
    /// What this broker gives to its neighbours and takes from them.
    Rules,
    /// What is to be so of one of them.
    Rule {
        /// Its name, or `*` for all that have no rule of their own.
        neighbour: SmolStr,
        /// None for no rule.
        rule: Option<Fact>,
    },
    /// Which links there are to be.
    Link(LinkTask),
}

pub(super) fn parse(call: &Call) -> Result<FederationAsk, Refusal> {
    match call.fun.as_str() {
        "mpreg.nodes" => kwargs(call, |_, _| Ok(false)).map(|()| FederationAsk::Nodes),
        "mpreg.link.list" => kwargs(call, |_, _| Ok(false)).map(|()| FederationAsk::Links),
        "mpreg.link.rules" => kwargs(call, |_, _| Ok(false)).map(|()| FederationAsk::Rules),
        "mpreg.link.rule" => rule(call),
        "mpreg.route.explain" => explain(call),
        _ => link(call),
    }
}

fn explain(call: &Call) -> Result<FederationAsk, Refusal> {
    let (mut node, mut of) = (None, None);
    kwargs(call, |key, cursor| {
        match key {
            "node" => node = Some(name("node", cursor)?),
            "name" => of = Some(any_name("name", cursor)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(FederationAsk::Explain { node: node.ok_or_else(|| missing("node"))?, name: of })
}

fn rule(call: &Call) -> Result<FederationAsk, Refusal> {
    let (mut neighbour, mut export, mut import) = (None, None, None);
    kwargs(call, |key, cursor| {
        match key {
            "neighbour" => neighbour = Some(any_name("neighbour", cursor)?),
            "export" => export = Some(patterns("export", cursor)?),
            "import" => import = Some(patterns("import", cursor)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let neighbour = neighbour.ok_or_else(|| missing("neighbour"))?;
    let is_one = export.is_some() || import.is_some();
    let (export, import) = (export.unwrap_or_default(), import.unwrap_or_default());
    let rule = is_one.then_some(Fact::Rule { export, import });
    Ok(FederationAsk::Rule { neighbour, rule })
}

fn patterns(field: &'static str, cursor: &mut Cursor<'_>) -> Result<Vec<SmolStr>, Refusal> {
    let bad = bad_args(field);
    let (mut texts, mut array) = (Vec::new(), cursor.array().map_err(&bad)?);
    while cursor.item(&mut array).map_err(&bad)? {
        texts.push(SmolStr::new(cursor.string().map_err(&bad)?));
    }
    let read = Names::parse(&texts);
    read.map(|_| texts).map_err(|refusal| Refusal { field: Some(field.into()), ..refusal })
}

fn link(call: &Call) -> Result<FederationAsk, Refusal> {
    let adds = call.fun == "mpreg.link.add";
    let (mut address, mut price_us) = (None, 0);
    kwargs(call, |key, cursor| {
        match key {
            "address" => address = Some(cursor.string().map_err(bad_args("address"))?.into()),
            "price_us" if adds => {
                let bad = || Refusal::field(Code::BadArgs, "price_us", "takes a number of 32 bits");
                let price = cursor.u64().map_err(bad_args("price_us"))?;
                price_us = u32::try_from(price).map_err(|_| bad())?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    let address: SmolStr = address.ok_or_else(|| missing("address"))?;
    if !address.starts_with("tcp://") && !address.starts_with("ipc://") {
        let message = format!("{address} is no door: tcp://HOST:PORT or ipc:///path/x.door");
        return Err(Refusal::field(Code::BadArgs, "address", message));
    }
    Ok(FederationAsk::Link(match adds {
        true => LinkTask::Add { address, price_us },
        false => LinkTask::Remove { address },
    }))
}
