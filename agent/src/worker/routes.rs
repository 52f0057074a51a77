//! Which service a call is for: the first part of its path. What the guest's owner switched off is refused here.

use std::{convert::Infallible, fmt, sync::Arc};

use guestline_proto::FILE_DESCRIPTOR_SET;
use hyper::{Request, Response, body::Incoming, service::Service};
use tonic::{body::Body, codegen::Service as Called, server::NamedService};

use super::{lingering::Lingering, serving::Served};
use crate::rpc::{
    self, Answering, Calls, FilesService, NetworkService, ProcessesService, SystemService, refused,
};

/// The services of one user. Cheap to clone.
#[derive(Clone)]
pub(super) struct Routes(Arc<Vec<Route>>);

struct Route {
    name: &'static str,
    call: Box<dyn Fn(Request<Body>) -> Answering + Send + Sync>,
}

impl fmt::Debug for Route {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

impl Routes {
    pub(super) async fn of(served: Served) -> Self {
        let Served {
            account,
            services,
            roster,
            registry,
            generation,
        } = served;
        let files = FilesService::new(account.home.clone());
        let processes = ProcessesService::new(Arc::clone(&account), registry);
        let network = NetworkService::new(account.home.clone());
        let system = SystemService::new(account, &roster, generation);

        let (health, health_server) = tonic_health::server::health_reporter();
        health
            .set_service_status("", tonic_health::ServingStatus::Serving)
            .await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
            .expect("the descriptors were compiled with this binary");
        Self(Arc::new(vec![
            route(files, services.files),
            route(processes, services.processes),
            route(system, services.system),
            route(network, services.network),
            standard(health_server),
            standard(reflection),
        ]))
    }
}

/// A service of ours.
fn route<C: Calls>(service: C, on: bool) -> Route {
    let service = Arc::new(service);
    let call = move |request| match on {
        true => rpc::answer(Arc::clone(&service), request),
        false => Box::pin(async { Ok(refused(rpc::switched_off())) }) as Answering,
    };
    Route {
        name: C::NAME,
        call: Box::new(call),
    }
}

/// A service of gRPC's own, which cannot be switched off.
fn standard<S>(service: S) -> Route
where
    S: Called<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: NamedService + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    let call = move |request: Request<Body>| -> Answering {
        let limit = rpc::time_limit(request.headers());
        // Always ready: what is bounded in a service is so for each call.
        rpc::in_time(limit, Box::pin(service.clone().call(request)))
    };
    Route {
        name: S::NAME,
        call: Box::new(call),
    }
}

impl Service<Request<Incoming>> for Routes {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn call(&self, request: Request<Incoming>) -> Answering {
        let named = request.uri().path().split('/').nth(1).unwrap_or_default();
        match self.0.iter().find(|route| route.name == named) {
            Some(route) => (route.call)(request.map(|body| Body::new(Lingering::new(body)))),
            None => Box::pin(async { Ok(refused(rpc::unknown_service())) }),
        }
    }
}
