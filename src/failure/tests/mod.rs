mod endings;
mod failing;
