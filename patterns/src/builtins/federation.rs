//! What the built-ins of other brokers take.

use smol_str::SmolStr;

use super::queues::name;
use super::topics::missing;
use super::{bad_args, kwargs};
use crate::base::{Code, Refusal};
use crate::node::LinkTask;
use crate::ops::Call;

/// A call about other brokers, its arguments read.
#[derive(Debug)]
pub enum FederationAsk {
    /// Every broker that is known.
    Nodes,
    /// The way to one of them.
    Explain {
        /// Its name.
        node: SmolStr,
    },
    /// Every link.
    Links,
    /// Which links there are to be.
    Link(LinkTask),
}

pub(super) fn parse(call: &Call) -> Result<FederationAsk, Refusal> {
    match call.fun.as_str() {
        "mpreg.nodes" => kwargs(call, |_, _| Ok(false)).map(|()| FederationAsk::Nodes),
        "mpreg.link.list" => kwargs(call, |_, _| Ok(false)).map(|()| FederationAsk::Links),
        "mpreg.route.explain" => explain(call),
        _ => link(call),
    }
}

fn explain(call: &Call) -> Result<FederationAsk, Refusal> {
    let mut node = None;
    kwargs(call, |key, cursor| {
        if key == "node" {
            node = Some(name("node", cursor)?);
        }
        Ok(key == "node")
    })?;
    Ok(FederationAsk::Explain { node: node.ok_or_else(|| missing("node"))? })
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
