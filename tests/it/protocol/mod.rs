//! The protocol over real pipes: what clients of every version may say, and what nobody should.

mod calls;
mod ends;
mod hostile;
mod messages;
mod progress;
mod prompts;
mod seen;
mod unread;
mod versions;

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
