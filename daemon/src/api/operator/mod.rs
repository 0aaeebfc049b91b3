//! The operator API. Every call first looks up the caller's key and role. A call about one node is
//! answered here or forwarded to that node.

mod alarms;
mod audit;
mod context;
mod etcd;
#[cfg(test)]
mod fuzz;
mod health;
mod members;
mod nodes;
mod server;
mod tokens;

use std::sync::Arc;

use muster_messages::OperatorMethod;
use muster_services::operator::operator_server::Operator;
use muster_types::wire::NODE_METADATA;
use tonic::{Request, Response, Status};

use context::CallContext;
pub use context::{OperatorContext, check_role};
pub use server::serve;

use super::listen::OperatorPeer;

/// The service on one control-plane node.
#[derive(Debug, Clone)]
pub struct OperatorService {
    context: Arc<OperatorContext>,
}

impl OperatorService {
    pub fn new(context: Arc<OperatorContext>) -> Self {
        Self { context }
    }

    /// Returns the caller if its role allows the call.
    fn authorize<T>(
        &self,
        request: &Request<T>,
        call: OperatorMethod,
    ) -> Result<CallContext, Status> {
        let peer = request
            .extensions()
            .get::<OperatorPeer>()
            .ok_or_else(|| Status::internal("the request did not come over the operator port"))?;
        self.context.authorize(&peer.key, call)?;
        Ok(CallContext { key: peer.key, node: target(request)? })
    }
}

/// Returns the node that a call names in its metadata.
fn target<T>(request: &Request<T>) -> Result<Option<String>, Status> {
    let Some(value) = request.metadata().get(NODE_METADATA) else { return Ok(None) };
    let text = value.to_str().map_err(|_| Status::invalid_argument("muster-node is not text"))?;
    Ok(Some(text.to_owned()))
}

/// Implements the service: each call checks the caller's role and is answered by the method of
/// [`OperatorContext`] that has its name. A call without such a method does not compile.
macro_rules! answer_calls {
    ($($call:ident $method:ident $request:ty, $reply:ty;)+) => {
        #[tonic::async_trait]
        impl Operator for OperatorService {
            $(
                async fn $method(
                    &self,
                    request: Request<$request>,
                ) -> Result<Response<$reply>, Status> {
                    let caller = self.authorize(&request, OperatorMethod::$call)?;
                    self.context.$method(&caller, request.into_inner()).await.map(Response::new)
                }
            )+
        }
    };
}

muster_services::for_each_operator_call!(answer_calls);
