pub const CLOSE_EVENTS: bool = true;
