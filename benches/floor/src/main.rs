//! An rmcp server with one tool. It answers nothing, or the JSON in the file that `FLOOR_ANSWER` names.

use rmcp::model::{CallToolResult, ContentBlock};
use rmcp::{ServerHandler, ServiceExt, tool, tool_handler, tool_router};
use serde_json::Value;
use tokio::io::{stdin, stdout};

#[derive(Clone)]
struct Floor(Option<Value>);

#[tool_router]
impl Floor {
    /// Answers what it was started with.
    #[tool]
    async fn answer(&self) -> CallToolResult {
        let Some(content) = &self.0 else {
            return CallToolResult::success(Vec::new());
        };
        let mut result = CallToolResult::success(vec![ContentBlock::text(content.to_string())]);
        result.structured_content = Some(content.clone());
        result
    }
}

#[tool_handler]
impl ServerHandler for Floor {}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let answer = match std::env::var("FLOOR_ANSWER") {
        Ok(path) => Some(serde_json::from_slice(&std::fs::read(path)?)?),
        Err(_) => None,
    };
    Floor(answer)
        .serve((stdin(), stdout()))
        .await?
        .waiting()
        .await?;
    Ok(())
}
