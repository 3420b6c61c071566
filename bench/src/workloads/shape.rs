//! The graphs that are measured, as the text of their steps.

use std::fmt::Write;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// Steps of one part of a graph: about 600 KiB of text.
const PART_STEPS: u64 = 10_000;

/// A graph, or the calls a graph is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "shape", rename_all = "snake_case")]
pub(crate) enum Shape {
    /// Steps that depend on nothing and do nothing.
    Flat { steps: u64 },
    /// Each step gives back the result of the one before.
    Chain { steps: u64 },
    /// The same work without a graph: calls, each made when the one before was answered.
    Calls { steps: u64 },
    /// A binary tree that adds up its leaves.
    Tree { leaves: u64 },
    /// `width` chains side by side; only the last step's result is returned.
    Mesh { steps: u64, width: u64 },
}

/// What a client does with a shape.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    /// What is measured.
    pub(crate) shape: Shape,
    /// How often, one after the other, within the measured time.
    pub(crate) repeats: u32,
    /// What is run before, once, uncounted.
    pub(crate) warm_up: Shape,
}

impl Shape {
    /// How many steps it has.
    pub(crate) const fn steps(self) -> u64 {
        match self {
            Self::Flat { steps }
            | Self::Chain { steps }
            | Self::Calls { steps }
            | Self::Mesh { steps, .. } => steps,
            Self::Tree { leaves } => 2 * leaves - 1,
        }
    }

    /// The steps whose results are returned, where these are not the sinks.
    pub(crate) fn returns(self) -> Option<String> {
        matches!(self, Self::Mesh { .. }).then(|| format!("s{}", self.steps() - 1))
    }

    /// The one result that says the graph did what it should, and whose it is.
    pub(crate) fn proof(self) -> (String, String) {
        match self {
            Self::Flat { .. } => ("s0".into(), "null".into()),
            Self::Chain { .. } | Self::Calls { .. } | Self::Mesh { .. } => {
                (format!("s{}", self.steps() - 1), "1".into())
            }
            Self::Tree { leaves } => ("s1".into(), leaves.to_string()),
        }
    }

    /// The steps as JSON arrays, one a part.
    pub(crate) fn parts(self) -> Vec<String> {
        let steps = self.steps();
        let starts = (0..steps).step_by(PART_STEPS as usize);
        starts.map(|start| self.part(start..steps.min(start + PART_STEPS))).collect()
    }

    fn part(self, range: Range<u64>) -> String {
        let mut text = String::from("[");
        for index in range {
            if text.len() > 1 {
                text.push(',');
            }
            self.step(index, &mut text);
        }
        text.push(']');
        text
    }

    fn step(self, index: u64, text: &mut String) {
        let first = r#""fun":"echo","args":[1]}"#;
        let written = match self {
            Self::Flat { .. } => write!(text, r#"{{"name":"s{index}","fun":"noop"}}"#),
            Self::Mesh { width, .. } if index >= width => {
                let before = index - width;
                write!(
                    text,
                    r#"{{"name":"s{index}","fun":"echo","args":[{{"$ref":"s{before}"}}]}}"#
                )
            }
            Self::Chain { .. } | Self::Calls { .. } if index > 0 => {
                let before = index - 1;
                write!(
                    text,
                    r#"{{"name":"s{index}","fun":"echo","args":[{{"$ref":"s{before}"}}]}}"#
                )
            }
            // Numbered as a heap is: the root is 1, the children of n are 2n and 2n + 1.
            Self::Tree { leaves } if index + 1 < leaves => {
                let node = index + 1;
                let (left, right) = (2 * node, 2 * node + 1);
                let args = format!(r#"[{{"$ref":"s{left}"}},{{"$ref":"s{right}"}}]"#);
                write!(text, r#"{{"name":"s{node}","fun":"add","args":{args}}}"#)
            }
            Self::Tree { .. } => write!(text, r#"{{"name":"s{}",{first}"#, index + 1),
            _ => write!(text, r#"{{"name":"s{index}",{first}"#),
        };
        debug_assert!(written.is_ok(), "writing into memory cannot fail");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use serde_json::Value;

    use super::*;

    /// Runs a shape here, in the order it stands backwards or forwards, and returns the proof.
    fn result(shape: Shape) -> String {
        let mut steps: Vec<Value> = Vec::new();
        for part in shape.parts() {
            steps.append(&mut serde_json::from_str(&part).unwrap());
        }
        assert_eq!(steps.len() as u64, shape.steps());
        let mut results: HashMap<String, u64> = HashMap::new();
        while results.len() < steps.len() {
            for step in &steps {
                let none = Vec::new();
                let args = step.get("args").and_then(Value::as_array).unwrap_or(&none);
                let args: Option<Vec<u64>> = args
                    .iter()
                    .map(|arg| match arg.get("$ref") {
                        Some(of) => results.get(of.as_str().unwrap()).copied(),
                        None => arg.as_u64(),
                    })
                    .collect();
                if let Some(args) = args {
                    let name = step["name"].as_str().unwrap().to_owned();
                    results.insert(name, args.iter().sum());
                }
            }
        }
        results[&shape.proof().0].to_string()
    }

    #[test]
    fn every_shape_proves_itself() {
        let shapes = [
            Shape::Chain { steps: 9 },
            Shape::Tree { leaves: 8 },
            Shape::Tree { leaves: 16_384 },
            Shape::Mesh { steps: 25_000, width: 1_000 },
        ];
        for shape in shapes {
            assert_eq!(result(shape), shape.proof().1, "{shape:?}");
        }
    }

    #[test]
    fn a_tree_adds_its_leaves() {
        let text = Shape::Tree { leaves: 2 }.parts().concat();
        assert_eq!(
            text,
            concat!(
                r#"[{"name":"s1","fun":"add","args":[{"$ref":"s2"},{"$ref":"s3"}]},"#,
                r#"{"name":"s2","fun":"echo","args":[1]},{"name":"s3","fun":"echo","args":[1]}]"#
            )
        );
    }

    #[test]
    fn a_large_graph_comes_in_parts() {
        assert_eq!(Shape::Flat { steps: 10_000 }.parts().len(), 1);
        assert_eq!(Shape::Flat { steps: 10_001 }.parts().len(), 2);
    }
}
