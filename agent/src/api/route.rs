//! Which command of the table a method and a path mean: the one table from which come the router, the role that a request needs, and the
//! OpenAPI document.
//!
//! Invariants: a route names a command of [`table`]; a path and a method name one route; what `{policy}` is in a path is for which policy a role is
//! needed. Does not: carry anything out, or know who asks. Source: ours.

use super::request::Method;
use crate::work::entry::{Arg, Entry, Kind};
use crate::work::table;

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "the routes below say what each does")]
pub enum What {
    Overview,
    PolicyPage,
    Style,
    OpenApi,
    Codes,
    Metrics,
    Node,
    Status,
    Events,
    Flush,
    Move,
    Policies,
    Policy,
    PolicySet,
    PolicyDelete,
    PolicyRename,
    Backup,
    Stop,
    Points,
    PointHold,
    PointRelease,
    PointNote,
    PointTag,
    PointExpire,
    PointUndo,
    Retention,
    RetentionRun,
    List,
    Stat,
    Jobs,
    Job,
    Roles,
    RoleGrant,
    RoleRevoke,
    Log,
    Garbage,
    GarbageRun,
}

/// What a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// It has none.
    None,
    /// An object with these fields.
    Fields(&'static [Arg]),
    /// A document with the fields of this table of `board/doc/json.md`.
    Document(&'static str),
}

/// What an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A document with the fields of this table of `board/doc/json.md`.
    Document(&'static str),
    /// A JSON object that no command prints.
    Object,
    /// A page, metrics or a stream.
    Other,
}

/// A route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// What is to be done.
    pub method: Method,
    /// With what: parts in braces stand for any.
    pub path: &'static str,
    /// What that is.
    pub what: What,
    /// The command of the table that does it: its role is needed, and it says what it does.
    pub command: &'static str,
    /// Fields of the query.
    pub query: &'static [Arg],
    /// The body.
    pub body: Body,
    /// Status of the answer when all goes well.
    pub status: u16,
    /// The answer.
    pub reply: Reply,
    /// `If-Match` must be sent.
    pub is_guarded: bool,
}

const fn get(path: &'static str, what: What, command: &'static str, reply: Reply) -> Route {
    Route {
        method: Method::Get,
        path,
        what,
        command,
        query: &[],
        body: Body::None,
        status: 200,
        reply,
        is_guarded: false,
    }
}

const fn post(
    path: &'static str,
    what: What,
    command: &'static str,
    fields: &'static [Arg],
    reply: Reply,
) -> Route {
    let body = if fields.is_empty() { Body::None } else { Body::Fields(fields) };
    Route { method: Method::Post, body, ..get(path, what, command, reply) }
}

const VOLUME: Arg =
    Arg::option("volume", Kind::Text, "Which volume of a point that has several: its device or its number");
const PATH: Arg = Arg::option("path", Kind::Text, "Path from the volume's root");

const ROLES: Arg =
    Arg::option("roles", Kind::Text, "Roles, such as viewer; to revoke, all if it is missing").many();
const POLICIES: Arg =
    Arg::option("policies", Kind::Text, "For these policies; for all if it is missing").many();

/// All routes. Pages are not in the OpenAPI document.
pub const ROUTES: &[Route] = &[
    get("/", What::Overview, "status", Reply::Other),
    get("/policies/{policy}", What::PolicyPage, "points", Reply::Other),
    get("/style.css", What::Style, "commands", Reply::Other),
    get("/metrics", What::Metrics, "status", Reply::Other),
    get("/v1/openapi.json", What::OpenApi, "commands", Reply::Object),
    get("/v1/codes", What::Codes, "commands", Reply::Object),
    get("/v1/node", What::Node, "identify", Reply::Object),
    get("/v1/status", What::Status, "status", Reply::Document("status")),
    get("/v1/events", What::Events, "status", Reply::Other),
    Route { status: 200, ..post("/v1/flush", What::Flush, "flush", &[], Reply::Document("flush")) },
    post(
        "/v1/coordinator/move",
        What::Move,
        "coordinator move",
        &[Arg::option("node", Kind::Number, "The node's number").required()],
        Reply::Document("coordinator move"),
    ),
    get("/v1/policies", What::Policies, "policy list", Reply::Document("policy list")),
    get("/v1/policies/{policy}", What::Policy, "policy show", Reply::Document("Policy")),
    Route {
        method: Method::Put,
        body: Body::Document("Policy"),
        is_guarded: true,
        ..get("/v1/policies/{policy}", What::PolicySet, "policy set", Reply::Document("policy set"))
    },
    Route {
        method: Method::Delete,
        is_guarded: true,
        ..get("/v1/policies/{policy}", What::PolicyDelete, "policy delete", Reply::Document("policy delete"))
    },
    Route {
        is_guarded: true,
        ..post(
            "/v1/policies/{policy}/rename",
            What::PolicyRename,
            "policy rename",
            &[Arg::option("to", Kind::Text, "The new name").required()],
            Reply::Document("policy rename"),
        )
    },
    Route {
        status: 202,
        ..post(
            "/v1/policies/{policy}/backup",
            What::Backup,
            "backup",
            &[],
            Reply::Document("backup through an agent: begun"),
        )
    },
    post("/v1/policies/{policy}/stop", What::Stop, "stop", &[], Reply::Document("stop")),
    Route {
        query: &[
            Arg::option("limit", Kind::Number, "At most so many points, newest first; 1000 at most"),
            Arg::option(
                "before",
                Kind::Number,
                "Points with smaller numbers only: `next` of the page before",
            ),
        ],
        ..get("/v1/policies/{policy}/points", What::Points, "points", Reply::Document("points"))
    },
    post(
        "/v1/policies/{policy}/points/{point}/hold",
        What::PointHold,
        "point hold",
        &[Arg::option("reason", Kind::Text, "Why, for those who find it later; at most 256 bytes")
            .required()],
        Reply::Document("point"),
    ),
    post(
        "/v1/policies/{policy}/points/{point}/release",
        What::PointRelease,
        "point release",
        &[],
        Reply::Document("point"),
    ),
    post(
        "/v1/policies/{policy}/points/{point}/note",
        What::PointNote,
        "point note",
        &[Arg::option("text", Kind::Text, "The note, at most 256 bytes; empty for none").required()],
        Reply::Document("point"),
    ),
    post(
        "/v1/policies/{policy}/points/{point}/tags",
        What::PointTag,
        "point tag",
        &[Arg::option("tags", Kind::Text, "Tags in place of those that it has").required().many()],
        Reply::Document("point"),
    ),
    post(
        "/v1/policies/{policy}/points/{point}/expire",
        What::PointExpire,
        "point expire",
        &[],
        Reply::Document("point"),
    ),
    post(
        "/v1/policies/{policy}/points/{point}/undo",
        What::PointUndo,
        "point undo",
        &[],
        Reply::Document("point"),
    ),
    get("/v1/policies/{policy}/retention", What::Retention, "policy show", Reply::Document("retention run")),
    post(
        "/v1/policies/{policy}/retention/run",
        What::RetentionRun,
        "retention run",
        &[Arg::option("expire", Kind::Number, "So many points expire, as GET .../retention says").required()],
        Reply::Document("retention run"),
    ),
    Route {
        query: &[
            PATH,
            VOLUME,
            Arg::option("from", Kind::Number, "Entries from this one on: `next` of the page before"),
        ],
        ..get("/v1/policies/{policy}/points/{point}/files", What::List, "ls", Reply::Object)
    },
    Route {
        query: &[PATH.required(), VOLUME],
        ..get("/v1/policies/{policy}/points/{point}/stat", What::Stat, "stat", Reply::Document("stat"))
    },
    get("/v1/jobs", What::Jobs, "status", Reply::Object),
    get("/v1/jobs/{job}", What::Job, "status", Reply::Object),
    get("/v1/roles", What::Roles, "role list", Reply::Document("role list")),
    post(
        "/v1/roles/{subject}/grant",
        What::RoleGrant,
        "role grant",
        &[ROLES.required(), POLICIES],
        Reply::Document("role grant"),
    ),
    post(
        "/v1/roles/{subject}/revoke",
        What::RoleRevoke,
        "role revoke",
        &[ROLES, POLICIES],
        Reply::Document("role grant"),
    ),
    Route {
        query: &[
            Arg::option(
                "last",
                Kind::Number,
                "So many of the newest entries; 100 if it is missing, 1000 at most",
            ),
            Arg::option("policy", Kind::Text, "Of this policy only"),
        ],
        ..get("/v1/log", What::Log, "log", Reply::Document("log"))
    },
    get("/v1/garbage", What::Garbage, "status", Reply::Document("Garbage")),
    Route { status: 202, ..post("/v1/garbage/run", What::GarbageRun, "gc", &[], Reply::Document("Garbage")) },
];

impl Route {
    /// The command that it is.
    #[must_use]
    pub fn entry(&self) -> Option<&'static Entry> {
        table::find(self.command)
    }

    /// Whether it is a page or its style, for people.
    #[must_use]
    pub fn is_page(&self) -> bool {
        matches!(self.what, What::Overview | What::PolicyPage | What::Style)
    }

    /// Its path as parts.
    pub fn parts(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter(|part| !part.is_empty())
    }

    fn fits(&self, path: &[String]) -> bool {
        self.parts().count() == path.len()
            && self.parts().zip(path).all(|(part, given)| part.starts_with('{') || part == given)
    }
}

/// What a method and a path mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This route, with what its parts in braces are.
    Route(&'static Route, Vec<(&'static str, String)>),
    /// The path has other methods.
    Method(Vec<Method>),
    /// There is no such path.
    Nothing,
}

/// Looks for a route. HEAD is GET.
#[must_use]
pub fn find(method: Method, path: &[String]) -> Found {
    let wanted = if method == Method::Head { Method::Get } else { method };
    let fitting = || ROUTES.iter().filter(|route| route.fits(path));
    if let Some(route) = fitting().find(|route| route.method == wanted) {
        let named = route
            .parts()
            .zip(path)
            .filter_map(|(part, given)| Some((part.strip_prefix('{')?.strip_suffix('}')?, given.clone())));
        return Found::Route(route, named.collect());
    }
    let mut methods: Vec<Method> = fitting().map(|route| route.method).collect();
    if methods.contains(&Method::Get) {
        methods.push(Method::Head);
    }
    methods.sort_unstable();
    if methods.is_empty() { Found::Nothing } else { Found::Method(methods) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn path(text: &str) -> Vec<String> {
        text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn every_route_is_a_command_and_is_found() {
        let (mut seen, mut whats) = (BTreeSet::new(), BTreeSet::new());
        for route in ROUTES {
            assert!(seen.insert((route.method, route.path)) && whats.insert(route.what), "{}", route.path);
            let entry =
                route.entry().unwrap_or_else(|| panic!("{}: no command {}", route.path, route.command));
            // What changes something is asked for by a method that says so.
            assert_eq!(entry.changes, !route.method.is_safe(), "{}: {}", route.path, entry.name);
            assert!(!route.is_guarded || entry.changes, "{}", route.path);
            let given: Vec<String> =
                route.parts().map(|part| part.trim_matches(['{', '}']).to_owned()).collect();
            let Found::Route(found, named) = find(route.method, &given) else { panic!("{}", route.path) };
            assert_eq!(found, route);
            assert!(named.iter().all(|(name, value)| name == value));
            assert_eq!(
                route.method == Method::Get,
                find(Method::Head, &given) == find(Method::Get, &given) && route.method.is_safe()
            );
        }
    }

    #[test]
    fn another_method_is_told_which_there_are() {
        let methods = |method, text: &str| match find(method, &path(text)) {
            Found::Method(methods) => methods,
            other => panic!("{other:?}"),
        };
        assert_eq!(methods(Method::Other, "/v1/status"), [Method::Get, Method::Head]);
        assert_eq!(
            methods(Method::Post, "/v1/policies/home"),
            [Method::Get, Method::Head, Method::Put, Method::Delete]
        );
        assert_eq!(methods(Method::Get, "/v1/flush"), [Method::Post]);
        assert_eq!(find(Method::Get, &path("/v2")), Found::Nothing);
        assert_eq!(find(Method::Get, &path("/v1/policies/a/b/c")), Found::Nothing);
    }
}
