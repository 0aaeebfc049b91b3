//! Node service for tests.

use std::pin::Pin;
use std::time::Duration;

use muster_messages::node::{
    ClusterView, ForwardReply, ForwardRequest, ProposeReply, ProposeRequest, RaftMessage,
    ReadIndexReply, ReadIndexRequest, ReportReply, ReportRequest, SnapshotChunk, WatchRequest,
};
use muster_services::node::node_server::Node;
use muster_transport::endpoint::Caller;
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status, Streaming};

/// Echoes appends, counts snapshots, streams views indefinitely.
#[derive(Debug)]
pub struct Echo;

type Streamed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Node for Echo {
    type WatchStream = Streamed<ClusterView>;
    type ForwardStream = Streamed<ForwardReply>;

    async fn append_entries(
        &self,
        r: Request<RaftMessage>,
    ) -> Result<Response<RaftMessage>, Status> {
        Caller::of(&r)?.require_control_plane()?;
        Ok(Response::new(r.into_inner()))
    }

    /// Never replies.
    async fn request_vote(&self, _: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        std::future::pending().await
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<RaftMessage>, Status> {
        let mut pieces = request.into_inner();
        let mut total = 0u64;
        while let Some(piece) = pieces.next().await {
            total += piece?.body.len() as u64;
        }
        Ok(Response::new(RaftMessage { body: total.to_be_bytes().to_vec() }))
    }

    async fn propose(&self, _: Request<ProposeRequest>) -> Result<Response<ProposeReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn read_index(
        &self,
        _: Request<ReadIndexRequest>,
    ) -> Result<Response<ReadIndexReply>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn report(&self, _: Request<ReportRequest>) -> Result<Response<ReportReply>, Status> {
        Ok(Response::new(ReportReply::default()))
    }

    /// Sends one view, then one more every 20 ms.
    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let ticks = tokio::time::interval(Duration::from_millis(20));
        let ticks = tokio_stream::wrappers::IntervalStream::new(ticks);
        let mut index = 0;
        let views = ticks.map(move |_| {
            index += 1;
            Ok(ClusterView { index, ..ClusterView::default() })
        });
        Ok(Response::new(Box::pin(views)))
    }

    async fn forward(
        &self,
        _: Request<ForwardRequest>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        Err(Status::unimplemented(""))
    }
}
