//! Paths beside a model that tries them all.

use std::collections::BTreeMap;

use proptest::prelude::*;
use smol_str::{SmolStr, format_smolstr};

use crate::federation::Life;
use crate::federation::routes::Routes;

const NODES: usize = 8;

fn name(node: usize) -> SmolStr {
    format_smolstr!("n{node}")
}

fn node_epoch(node: usize) -> u64 {
    10 + node as u64
}

fn life(node: usize) -> Life {
    Life { node: name(node), epoch: node_epoch(node) }
}

/// What each end says of a link.
type Said = BTreeMap<(usize, usize), u32>;

fn routes(me: usize, said: &Said) -> Routes {
    let mut routes = Routes::new(&life(me));
    (0..NODES).for_each(|node| routes.begin(&life(node)));
    for (&(from, to), &cost) in said {
        routes.set(&name(from), &name(to), Some((node_epoch(to), cost * 500)));
    }
    routes.refresh();
    routes
}

/// Floyd and Warshall's, over the links that both ends speak of.
fn distances(said: &Said) -> Vec<Vec<Option<u32>>> {
    let mut best = vec![vec![None; NODES]; NODES];
    for (&(a, b), &cost) in said {
        best[a][b] = said.get(&(b, a)).map(|back| cost.max(*back) * 500);
    }
    for (node, row) in best.iter_mut().enumerate() {
        row[node] = Some(0);
    }
    for over in 0..NODES {
        for a in 0..NODES {
            for b in 0..NODES {
                let (Some(first), Some(second)) = (best[a][over], best[over][b]) else { continue };
                let sum = first + second;
                best[a][b] = Some(best[a][b].map_or(sum, |known: u32| known.min(sum)));
            }
        }
    }
    best
}

fn said() -> impl Strategy<Value = Said> {
    let link = (0..NODES, 0..NODES).prop_filter("no link to oneself", |(a, b)| a != b);
    prop::collection::btree_map(link, 1..4_u32, 0..40)
}

proptest! {
    /// Each way is as cheap as can be, begins with every neighbour that is on one as cheap, and
    /// following it step by step, whatever the flow, comes nearer each time.
    #[test]
    fn ways_are_shortest(said in said(), flow in any::<u64>()) {
        let best = distances(&said);
        let all: Vec<Routes> = (0..NODES).map(|me| routes(me, &said)).collect();
        for from in 0..NODES {
            for to in (0..NODES).filter(|to| *to != from) {
                let way = all[from].ways().get(&name(to));
                prop_assert_eq!(way.map(|way| way.cost_us), best[from][to]);
                let Some(way) = way else { continue };
                let link = |next: usize| {
                    let (there, back) = (said.get(&(from, next))?, said.get(&(next, from))?);
                    Some((*there).max(*back) * 500)
                };
                let on_one = |next: &usize| {
                    link(*next).zip(best[*next][to]).map(|(a, b)| a + b) == best[from][to]
                };
                let neighbours: Vec<SmolStr> = (0..NODES).filter(on_one).map(name).collect();
                prop_assert_eq!(&way.first, &neighbours);
                let next = all[from].next(&name(to), flow).unwrap();
                let next: usize = next[1..].parse().unwrap();
                prop_assert!(best[next][to] < best[from][to]);
                let path = all[from].path(&name(to)).unwrap();
                prop_assert_eq!(path.first(), Some(&name(from)));
                prop_assert_eq!(path.last(), Some(&name(to)));
            }
        }
    }
}
