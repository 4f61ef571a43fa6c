//! Events in words, for `--trace`.

use windlass_agent::log::call::{Answer, Call};

use super::super::Input;

pub fn call_text(call: &Call) -> String {
    match call {
        Call::Get { key } => format!("GET {key}"),
        Call::Create { key, .. } => format!("CREATE {key}"),
        Call::Put { key, .. } => format!("PUT {key}"),
        Call::Last { prefix, .. } => format!("LAST {prefix}"),
        Call::List { prefix, .. } => format!("LIST {prefix}"),
        Call::Above { prefix, after, .. } => format!("LIST {prefix} above {after}"),
        Call::Delete { key } => format!("DELETE {key}"),
    }
}

pub fn answer_text(answer: &Answer) -> String {
    match answer {
        Answer::Body(bytes) => format!("{} bytes", bytes.len()),
        Answer::Keys(keys) => format!("{} keys, last {:?}", keys.len(), keys.last()),
        Answer::Done | Answer::Absent | Answer::Fault(_) => format!("{answer:?}"),
    }
}

pub fn brief<M: std::fmt::Debug>(input: &Input<M>) -> String {
    match input {
        Input::Answer { id, answer } => format!("answer {id:x}: {}", answer_text(answer)),
        Input::Frame { from, message } => format!("frame of node {}: {message:?}", from + 1),
        Input::Peer { node, up } => format!("node {} {}", node + 1, if *up { "is there" } else { "is gone" }),
        Input::Wake => "wake".to_owned(),
        Input::Work => "work".to_owned(),
        Input::Finish => "finish".to_owned(),
        Input::Change(changes) => format!("change of {} policies", changes.len()),
        Input::Urge(policies) => format!("start {policies:?} again"),
    }
}
