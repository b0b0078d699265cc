//! Parts of a running command that have no output of their own: logs, signals, servers, and the directories to work on.

pub(super) mod alert;
pub(super) mod claims;
pub(super) mod dir_filter;
pub(super) mod engine;
pub(super) mod log;
pub(super) mod metrics;
pub(super) mod plan;
pub(super) mod program;
pub(super) mod quarantines;
pub(super) mod service_notify;
pub(super) mod signals;
pub(super) mod status_answer;
pub(super) mod status_server;
pub(super) mod suspend;
pub(super) mod trees;
