//! The query of a request: fields of the envelope, each as its own text.

use std::borrow::Cow;

use mpreg_patterns::base::refusal::cut;
use mpreg_patterns::base::{Code, Refusal};
use serde_json::{Value as Json, json};

use super::guest::Op;

/// What a field of a query is in the envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Number,
    Flag,
    /// May be given again.
    Texts,
}

/// Puts the fields of a query into an op. One that is not known is refused by name.
pub(super) fn put(query: Option<&str>, known: &[(&str, Type)], op: &mut Op) -> Result<(), Refusal> {
    for (field, value) in fields(query, known)? {
        op.put(field, &value);
    }
    Ok(())
}

/// The fields of a query, in the order of the list.
pub(super) fn fields<'k>(
    query: Option<&str>,
    known: &[(&'k str, Type)],
) -> Result<Vec<(&'k str, Json)>, Refusal> {
    let pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> =
        form_urlencoded::parse(query.unwrap_or_default().as_bytes()).collect();
    if let Some((name, _)) = pairs.iter().find(|(name, _)| known.iter().all(|of| of.0 != name)) {
        let takes: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let takes = if takes.is_empty() { "nothing".into() } else { takes.join(", ") };
        let message = format!("`{}` is not known; the query takes {takes}", cut(name, 64));
        return Err(Refusal::field(Code::BadField, name, message));
    }
    let mut fields = Vec::new();
    for (name, kind) in known {
        let mut values = pairs.iter().filter(|(of, _)| of == name).map(|(_, value)| value);
        let wrong = |what: &str| {
            Refusal::field(Code::BadField, name, format!("`{name}` takes {what}, once"))
        };
        let value = match kind {
            Type::Texts => {
                let texts: Vec<_> = values.collect();
                (!texts.is_empty()).then(|| json!(texts))
            }
            _ => match (values.next(), values.next()) {
                (None, _) => None,
                (Some(value), None) => Some(single(*kind, value).map_err(wrong)?),
                (Some(_), Some(_)) => return Err(wrong("one value")),
            },
        };
        fields.extend(value.map(|value| (*name, value)));
    }
    Ok(fields)
}

fn single(kind: Type, value: &str) -> Result<Json, &'static str> {
    match kind {
        Type::Number => value.parse::<u64>().map(Json::from).map_err(|_| "a whole number from 0"),
        Type::Flag => value.parse::<bool>().map(Json::from).map_err(|_| "true or false"),
        Type::Text | Type::Texts => Ok(Json::from(value)),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing("", "[]")]
    #[case::all(
        "n=7&t=a%20b&f=true&l=x&l=y",
        r#"[["t","a b"],["n",7],["f",true],["l",["x","y"]]]"#
    )]
    #[case::unknown("z=1", "bad_field(z): `z` is not known; the query takes t, n, f, l")]
    #[case::twice("n=1&n=2", "bad_field(n): `n` takes one value, once")]
    #[case::no_number("n=-1", "bad_field(n): `n` takes a whole number from 0, once")]
    #[case::no_flag("f=yes", "bad_field(f): `f` takes true or false, once")]
    fn what_a_query_says(#[case] query: &str, #[case] told: &str) {
        let known = [("t", Type::Text), ("n", Type::Number), ("f", Type::Flag), ("l", Type::Texts)];
        let found = match fields(Some(query), &known) {
            Ok(fields) => serde_json::to_string(&fields).unwrap(),
            Err(why) => format!("{}({}): {}", why.code, why.field.unwrap(), why.message),
        };
        assert_eq!(found, told);
    }
}
