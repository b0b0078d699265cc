//! Text for people: events, messages, names, sizes and durations.

mod bursts;
pub(super) mod census;
pub(super) mod duration;
pub(super) mod event_printer;
pub(super) mod groups;
pub(super) mod held_temps;
pub(super) mod learned;
pub(super) mod lookalikes;
pub(super) mod messages;
pub(super) mod moment;
pub(super) mod reasons;
pub(super) mod shell;
pub(super) mod size;
pub(super) mod standard_streams;
pub(super) mod temp_fields;
pub(super) mod text;
pub(super) mod watch_status;
pub(super) mod wrap;
pub(super) mod writer_list;
