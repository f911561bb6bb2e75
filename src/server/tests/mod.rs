mod consent;
mod panics;
