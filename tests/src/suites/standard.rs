//! gRPC's own services, as generated stubs ask them.

use anyhow::{Context, bail, ensure};
use hyper::Uri;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::{
    cases,
    runner::Outcome,
    stub::{self, Stub},
    target::Target,
};

cases![
    health_says_that_it_serves,
    reflection_tells_every_service_and_its_files,
];

fn origin() -> Uri {
    Uri::from_static("http://guestline")
}

async fn health_says_that_it_serves(target: &Target) -> Outcome {
    let mut health = HealthClient::with_origin(
        stub::stub(stub::greeted(target, "root", b"").await?).await?,
        origin(),
    );
    let asked = HealthCheckRequest::default();
    let answer = health.check(asked).await?.into_inner();
    ensure!(answer.status() == ServingStatus::Serving, "{answer:?}");
    let unknown = HealthCheckRequest {
        service: "no.such.Service".into(),
    };
    let unknown = health.check(unknown).await;
    ensure!(unknown.is_err(), "{unknown:?}");
    Ok(())
}

async fn ask(
    client: &mut ServerReflectionClient<Stub>,
    message: MessageRequest,
) -> anyhow::Result<MessageResponse> {
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(message),
    };
    let answers = client
        .server_reflection_info(tokio_stream::once(request))
        .await?;
    let answer = answers.into_inner().message().await?.context("no answer")?;
    answer.message_response.context("an empty answer")
}

async fn reflection_tells_every_service_and_its_files(target: &Target) -> Outcome {
    let stub = stub::stub(stub::greeted(target, "root", b"").await?).await?;
    let mut client = ServerReflectionClient::with_origin(stub, origin());
    let MessageResponse::ListServicesResponse(listed) =
        ask(&mut client, MessageRequest::ListServices(String::new())).await?
    else {
        bail!("no list of services");
    };
    let names: Vec<_> = listed
        .service
        .iter()
        .map(|service| &*service.name)
        .collect();
    let ours =
        ["Files", "Processes", "System", "Network"].map(|name| format!("guestline.v1.{name}"));
    for service in ours
        .iter()
        .map(String::as_str)
        .chain(["grpc.health.v1.Health"])
    {
        ensure!(names.contains(&service), "{service} is not in {names:?}");
        let asked = MessageRequest::FileContainingSymbol(service.into());
        let MessageResponse::FileDescriptorResponse(files) = ask(&mut client, asked).await? else {
            bail!("no file has {service}");
        };
        ensure!(
            !files.file_descriptor_proto.is_empty(),
            "{service}: no file"
        );
    }
    Ok(())
}
