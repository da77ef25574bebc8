//! What the server says of itself, and which message does what.

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, CustomRequest, CustomResult,
    ErrorCode, Implementation, ListResourceTemplatesResult, ListResourcesResult, ListToolsResult,
    PaginatedRequestParams, ReadResourceRequestParams, ReadResourceResponse, ReadResourceResult,
    ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};

use super::progress::Teller;
use super::tools::{Caller, Tools};
use super::{resources, schemas};
use crate::pool::Pool;

/// How the server calls itself.
const NAME: &str = "local-models";

const INSTRUCTIONS: &str = "Models that run on this machine. list_models says which there are and how much memory \
     is left for them; load_model fetches one that is not here and loads it, which may take minutes. \
     A loaded model answers at /v1/chat/completions of the same server.";

/// The methods that are known here: what is sent for one of them in another shape is malformed.
const METHODS: [&str; 6] = [
    "initialize",
    "tools/call",
    "tools/list",
    "resources/list",
    "resources/read",
    "resources/templates/list",
];

/// The models of one pool, as the SDK asks for them.
#[derive(Clone)]
pub(super) struct Models {
    tools: Tools,
}

impl Models {
    pub(super) fn new(pool: Pool) -> Self {
        Self {
            tools: Tools::new(pool),
        }
    }
}

type Context = RequestContext<RoleServer>;
type Page = Option<PaginatedRequestParams>;

/// Everything is on the first page.
fn first(page: Page) -> Result<(), ErrorData> {
    if page.is_none_or(|page| page.cursor.is_none()) {
        return Ok(());
    }
    let text = "the cursor is none of this server's: ask without one";
    Err(ErrorData::invalid_params(text, None))
}

impl ServerHandler for Models {
    fn get_info(&self) -> ServerConfig {
        let capabilities = ServerCapabilities::builder()
            .enable_tools()
            .enable_resources()
            .build();
        let version = env!("CARGO_PKG_VERSION");
        ServerConfig::new(capabilities)
            .with_server_info(Implementation::new(NAME, version).with_title("Ingle"))
            .with_instructions(INSTRUCTIONS)
    }

    fn get_tool(&self, name: &str) -> Option<Tool> {
        schemas::tools().into_iter().find(|tool| tool.name == name)
    }

    async fn list_tools(&self, page: Page, _: Context) -> Result<ListToolsResult, ErrorData> {
        first(page)?;
        Ok(ListToolsResult::with_all_items(schemas::tools()))
    }

    async fn call_tool(
        &self,
        call: CallToolRequestParams,
        context: Context,
    ) -> Result<CallToolResponse, ErrorData> {
        let token = context.meta.get_progress_token();
        let caller = Caller {
            teller: Teller::new(&context.peer, token),
            cancelled: context.ct,
        };
        let arguments = call.arguments.unwrap_or_default();
        let called = Box::pin(self.tools.call(&call.name, arguments, caller)).await;
        let result = match called {
            Ok(value) => CallToolResult::structured(value),
            Err(failure) => failure.into_result()?,
        };
        Ok(result.into())
    }

    async fn list_resources(
        &self,
        page: Page,
        _: Context,
    ) -> Result<ListResourcesResult, ErrorData> {
        first(page)?;
        let resources = resources::list(self.tools.pool()).await;
        Ok(ListResourcesResult::with_all_items(resources))
    }

    async fn list_resource_templates(
        &self,
        page: Page,
        _: Context,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        first(page)?;
        let templates = vec![resources::template()];
        Ok(ListResourceTemplatesResult::with_all_items(templates))
    }

    async fn read_resource(
        &self,
        asked: ReadResourceRequestParams,
        _: Context,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let contents = resources::read(self.tools.pool(), &asked.uri).await?;
        Ok(ReadResourceResult::new(vec![contents]).into())
    }

    async fn on_custom_request(
        &self,
        request: CustomRequest,
        _: Context,
    ) -> Result<CustomResult, ErrorData> {
        let method = request.method;
        if METHODS.contains(&method.as_str()) {
            let text = format!("the params of {method} do not have its shape");
            return Err(ErrorData::invalid_params(text, None));
        }
        let text = format!("there is no method {method}");
        Err(ErrorData::new(ErrorCode::METHOD_NOT_FOUND, text, None))
    }
}
