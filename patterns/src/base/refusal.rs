//! Every "no" the broker says: a stable code, whose fault it is, and whether to try again.
//!
//! The table below is the one registry: `docs/errors.md` and `mpreg errors CODE` print it.

use std::fmt;

use serde::Serialize;
use smol_str::SmolStr;

/// Who has to change something before the same request can succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Culprit {
    /// The peer that sent the request.
    Caller,
    /// The worker that ran it.
    Worker,
    /// The broker, or the state it is in.
    Broker,
}

impl Culprit {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Worker => "worker",
            Self::Broker => "broker",
        }
    }
}

macro_rules! codes {
    ($(
        $name:ident = $text:literal, $culprit:ident, $retry:literal, $doc:literal, $advice:literal;
    )*) => {
        /// A stable error code. Its text never changes once released.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $(#[doc = $doc] $name,)* }

        impl Code {
            /// Every code, in the order of the registry.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// The text on the wire.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// Whose fault it is.
            #[must_use]
            pub const fn culprit(self) -> Culprit {
                match self { $(Self::$name => Culprit::$culprit,)* }
            }

            /// Whether the same request may succeed later, unchanged.
            #[must_use]
            pub const fn retry(self) -> bool {
                match self { $(Self::$name => $retry,)* }
            }

            /// What happened, and whether anything changed.
            #[must_use]
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $doc,)* }
            }

            /// What to do next.
            #[must_use]
            pub const fn advice(self) -> &'static str {
                match self { $(Self::$name => $advice,)* }
            }
        }
    };
}

codes! {
    BadEncoding = "bad_encoding", Caller, false,
        "The frame is not JSON, MessagePack or a bincode batch. Nothing changed.",
        "Send `{`, `[`, a MessagePack map or array, or the byte 0x01 first.";
    BadFrame = "bad_frame", Caller, false,
        "An attachment is unused, missing, named twice or too large. Nothing changed.",
        "Name each extra frame once, as {\"$frame\":n} counted from 1 after the body.";
    BadField = "bad_field", Caller, false,
        "A field is missing, has the wrong type or a value out of range. Nothing changed.",
        "See `field` for which, and docs/PROTOCOL.md for what it takes.";
    UnknownOp = "unknown_op", Caller, false,
        "The `op` is none this broker knows. Nothing changed.",
        "See docs/PROTOCOL.md for the ops; a newer peer may need a newer broker.";
    EmptyBatch = "empty_batch", Caller, false,
        "A batch without items. Nothing changed.",
        "Send at least one item.";
    TooLarge = "too_large", Caller, false,
        "The envelope, the batch or an attachment is over a limit. Nothing changed.",
        "Send large data as attachments and large graphs in parts; `welcome` names the limits.";
    TooDeep = "too_deep", Caller, false,
        "Arrays or objects are nested deeper than `limits.depth`. Nothing changed.",
        "Send the value as an attachment, or flatten it.";
    NeedsDealer = "needs_dealer", Caller, false,
        "A REQ peer sent an op that has no single reply. Nothing changed.",
        "Connect with a DEALER socket for cancel, offer, result, progress and graphs in parts.";
    NotSupported = "not_supported", Caller, false,
        "The request names something this version does not have. Nothing changed.",
        "Leave the named field out, or use a broker that has it.";
    DuplicateId = "duplicate_id", Caller, false,
        "The `id` is in flight on this connection. This request was refused, the first goes on.",
        "Give each request in flight an id of its own.";
    NotShared = "not_shared", Caller, true,
        "A rule of a link between brokers keeps the name on its own side. Nothing changed.",
        "Let it through with `mpreg link rule`, or wait: what is on its way is tried again.";
    ReservedName = "reserved_name", Caller, false,
        "Names that begin with `mpreg.` belong to the broker. Nothing changed.",
        "Choose another name.";
    BadName = "bad_name", Caller, false,
        "A name is empty, too long, or has an empty word or a control character. Nothing changed.",
        "Use 1 to 255 bytes of UTF-8, words parted by single dots.";
    BadVersion = "bad_version", Caller, false,
        "A version is not semver, or a range is not in Cargo's syntax. Nothing changed.",
        "Write versions as 1.2.3 and ranges as ^1.2, ~1.2 or >=1, <3.";
    BadArgs = "bad_args", Caller, false,
        "A built-in function was given arguments it does not take. Nothing changed.",
        "Built-ins take `kwargs` only; docs/PROTOCOL.md lists them.";
    UnknownFunction = "unknown_function", Caller, true,
        "No worker offers a function of that name now. Nothing ran.",
        "Start a worker for it, or send \"wait\":true to wait until the timeout.";
    NoVersion = "no_version", Caller, true,
        "The function exists, but in no version the range allows. Nothing ran.",
        "The message lists the versions there are.";
    NoLocation = "no_location", Caller, true,
        "The function exists, but on no worker with all the locs, or in other clusters alone. \
         Nothing ran.",
        "The message lists who has the function without them, or in which clusters it is.";
    Busy = "busy", Broker, true,
        "A bound on what may be in flight is reached. Nothing ran.",
        "Wait for replies before sending more.";
    Draining = "draining", Broker, true,
        "The broker is going down: it takes nothing new, and what had not begun never will. \
         Nothing ran.",
        "Send it again to the broker that comes up, or to another.";
    Timeout = "timeout", Broker, false,
        "The deadline passed without an outcome. It may have run; its late result is dropped.",
        "Find out whether it ran, then send it again with more time.";
    Cancelled = "cancelled", Caller, false,
        "The request was cancelled. A step that had begun was told to stop.",
        "Nothing: it was asked for.";
    OutcomeUnknown = "outcome_unknown", Worker, false,
        "The worker, or the broker, was lost with the call in hand. It may or may not have run.",
        "Find out, then send it again; functions offered as idempotent are moved for you.";
    Failed = "failed", Worker, false,
        "The worker ran the function and it failed. The message is the worker's own.",
        "Read the message; `retry` in a step runs it again.";
    UnencodableValue = "unencodable_value", Caller, false,
        "A value cannot be held by the receiver's encoding. The message names the path.",
        "Use a type that both encodings have, or an attachment.";
    BadValue = "bad_value", Worker, false,
        "A value is not valid in the encoding it claims. Nothing was passed on.",
        "Encode it with a library for that format.";
    ResultTooLarge = "result_too_large", Worker, false,
        "The worker's answer is over a limit of the envelope. The call ran.",
        "Return large data as attachments.";
    BadGraph = "bad_graph", Caller, false,
        "The graph is empty or not well formed. Nothing ran.",
        "The message says what is wrong and where.";
    DuplicateStep = "duplicate_step", Caller, false,
        "Two steps have one name. Nothing ran.",
        "Give each step a name of its own; `ns/step` makes namespaces.";
    UnknownStep = "unknown_step", Caller, false,
        "A reference, `after` or `return` names a step that is not there. Nothing ran.",
        "The message says where; {\"$lit\":…} quotes a value that only looks like a reference.";
    Cycle = "cycle", Caller, false,
        "The steps depend on each other in a circle. Nothing ran.",
        "The message prints the circle; take one arrow out.";
    MissingPath = "missing_path", Caller, false,
        "A reference points into a result at a place that is not there. The step did not run.",
        "The message names the step, the path and the type found.";
    IncompleteGraph = "incomplete_graph", Caller, false,
        "A part of a graph is missing or came too late. Nothing ran.",
        "Send part 0, 1, 2 … without gaps, the last without \"more\".";
    InputFailed = "input_failed", Caller, false,
        "A step this one depends on did not finish. The step did not run.",
        "See the outcome of the step it names.";
    UnknownGraph = "unknown_graph", Caller, false,
        "No graph with that id runs or ended lately. Nothing changed.",
        "Use the `track` of the graph's first progress or of its reply.";
    BadPattern = "bad_pattern", Caller, false,
        "A pattern has an empty word, or `*` or `#` inside a longer word, or is too long. The \
         patterns before it in the same request hold.",
        "Part words by single dots; `*` stands for one word, `#` for any number.";
    BadExpression = "bad_expression", Caller, false,
        "An expression is none in CEL, or asks too much. Nothing changed.",
        "See the rules for `where` in the protocol; the message says where it went wrong.";
    NotRetained = "not_retained", Caller, false,
        "No log keeps all topics of the pattern, so there is nothing to replay. Nothing changed.",
        "Ask for a pattern within a `[[topics.retain]]` of the broker, or add one to its config.";
    TooManyPatterns = "too_many_patterns", Caller, false,
        "The connection or the broker holds as many patterns as it may. The patterns before it in \
         the same request hold.",
        "Unsubscribe from some, subscribe to wider patterns, or raise the limit.";
    UnknownQueue = "unknown_queue", Caller, false,
        "No queue of that name is declared. Nothing changed.",
        "Declare it with `mpreg.queue.declare`, or let `send` and `consume` create it.";
    QueueDiffers = "queue_differs", Caller, false,
        "The queue exists with other settings. The message names them. Nothing changed.",
        "Declare it with the settings it has, or delete it first.";
    CannotBind = "cannot_bind", Caller, true,
        "The outlet of a queue cannot be bound where it was declared. The queue was not made.",
        "Stop what has that port, or declare another; port 0 lets the system choose.";
    QueueFull = "queue_full", Caller, true,
        "The queue holds as many messages or bytes as it may. The message was not taken.",
        "Wait until consumers have made room, or raise `max_count` or `max_bytes`.";
    Unroutable = "unroutable", Caller, true,
        "No queue is bound to the topic, and no route takes it. The message was not taken.",
        "Bind a queue in `mpreg.queue.declare`, add a route, or send to a queue by its name.";
    UnknownRoute = "unknown_route", Caller, false,
        "There is no route of that name. Nothing changed.",
        "`mpreg.route.list` tells which there are.";
    RouteChanged = "route_changed", Caller, false,
        "The route has another version than `if_version` says. Nothing changed.",
        "Read it with `mpreg.route.list`, and decide again.";
    RouteFailed = "route_failed", Caller, false,
        "What a route is to `set` could not be worked out for the message. No queue has it.",
        "The message names the route and says why; change the route, or what is sent.";
    StoreFull = "store_full", Broker, true,
        "The disk, or the room the store may take of it, is full. The message was not taken; \
         it may have been delivered all the same.",
        "Take what waits, make room on the disk of the data folder, or raise `store.max_bytes`; \
         then send it again.";
    StoreFailed = "store_failed", Broker, true,
        "Writing to the data folder failed, or something in it is damaged. What was sent may be \
         lost.",
        "See the message and the broker's log; `mpreg store check` looks over the data folder.";
    UnknownNode = "unknown_node", Caller, false,
        "No broker of that name has been heard of. Nothing changed.",
        "`mpreg nodes` tells which are known.";
    WrongEndpoint = "wrong_endpoint", Caller, false,
        "The bridge is where brokers agree on links; it takes nothing else. Nothing changed.",
        "Clients and workers connect to the door, which the message names.";
    SameBroker = "same_broker", Caller, false,
        "A broker was told to link to itself. There is no such link.",
        "Take the address out of `--link` and `[[link]]` of that broker.";
    NodeTaken = "node_taken", Caller, true,
        "Another broker has the same name. The link was not made.",
        "Start one of them with another `--node`, and with another data folder.";
    WrongProtocol = "wrong_protocol", Caller, false,
        "The two brokers speak different versions of the protocol of links. The link was not made.",
        "Bring both to versions of the program that speak the same.";
    LinkExists = "link_exists", Caller, true,
        "The two brokers have a link, or agree on one just now. No second one was made.",
        "Nothing: a broker that is told so asks again if the other one's attempt fails.";
    LinkFailed = "link_failed", Broker, true,
        "A neighbour cannot be reached, or does not finish agreeing on a link. It is tried again.",
        "See the message; the address is that of the other broker's door.";
    ForeignOrigin = "foreign_origin", Caller, false,
        "A browser asks for a page of another origin, or under a host name that is not this \
         broker's. Nothing changed.",
        "List the origin or the host under `[http]` in the broker's config.";
    BadContentType = "bad_content_type", Caller, false,
        "A POST has a body of another type than JSON or bytes. Nothing changed.",
        "Send `Content-Type: application/json`, or `application/octet-stream` for bytes.";
    UnknownPath = "unknown_path", Caller, false,
        "There is nothing at this path of the HTTP endpoint, or not with this method. Nothing \
         changed.",
        "See docs/PROTOCOL.md for the paths.";
}

impl Code {
    /// Finds a code by its text.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One "no", as it goes onto the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The stable code; a worker may send one of its own.
    pub code: SmolStr,
    /// Words for a person.
    pub message: Box<str>,
    /// Whose fault it is.
    pub culprit: Culprit,
    /// Whether the same request may succeed later, unchanged.
    pub retry: bool,
    /// The field at fault, if there is one.
    pub field: Option<SmolStr>,
    /// What was refused, where the request's own outcome is still to come.
    pub refused: Option<&'static str>,
}

impl Refusal {
    /// A refusal with the registry's culprit and retry. What the message repeats of a request is
    /// cut to a bound.
    #[must_use]
    pub fn new(code: Code, message: impl Into<Box<str>>) -> Self {
        let mut message = message.into();
        if message.len() > super::limits::ERROR_TEXT_BYTES {
            message = cut(&message, super::limits::ERROR_TEXT_BYTES).into();
        }
        Self {
            code: SmolStr::new_static(code.as_str()),
            message,
            culprit: code.culprit(),
            retry: code.retry(),
            field: None,
            refused: None,
        }
    }

    /// The same, naming the field at fault.
    #[must_use]
    pub fn field(code: Code, field: &str, message: impl Into<Box<str>>) -> Self {
        let field = cut(field, super::limits::NAME_BYTES);
        Self { field: Some(SmolStr::new(field)), ..Self::new(code, message) }
    }

    /// An op that only a broker says came from a peer that is none.
    #[must_use]
    pub fn brokers_own(op: &str) -> Self {
        Self::field(Code::UnknownOp, "op", format!("`{op}` is what a broker says"))
    }

    /// The broker ends with the request in flight.
    #[must_use]
    pub fn cut_off(begun: bool) -> Self {
        if begun {
            let message = "the broker ended while it ran";
            return Self { culprit: Culprit::Broker, ..Self::new(Code::OutcomeUnknown, message) };
        }
        Self::new(Code::Draining, "the broker ended before it began")
    }

    /// What a worker reported: its own code and text, cut to a bound.
    #[must_use]
    pub fn by_worker(code: Option<&str>, message: &str, retry: bool) -> Self {
        let code = match code {
            Some(text) if !text.is_empty() && text.len() <= super::ids::PEER_ID_BYTES => {
                SmolStr::new(text)
            }
            _ => SmolStr::new_static(Code::Failed.as_str()),
        };
        let message = cut(message, super::limits::ERROR_TEXT_BYTES).into();
        Self { code, message, culprit: Culprit::Worker, retry, field: None, refused: None }
    }

    /// Whether this is the given code of the registry.
    #[must_use]
    pub fn is(&self, code: Code) -> bool {
        self.code == code.as_str()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

/// The longest prefix of `text` that fits into `bytes` and ends between characters.
#[must_use]
pub fn cut(text: &str, bytes: usize) -> &str {
    let mut end = text.len().min(bytes);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
