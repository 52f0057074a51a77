//! guestline.v1.System: what the guest is, its accounts, and what changes it.

mod answer;
mod failure;
#[cfg(fuzzing)]
pub(super) mod fuzzing;
mod request;

use std::{path::Path, sync::Arc};

use guestline_proto::v1::{
    ControlServiceRequest, ControlServiceResponse, CreateGroupRequest, CreateGroupResponse,
    CreateServiceRequest, CreateServiceResponse, CreateUserRequest, CreateUserResponse,
    ErrorReason, FreezeRequest, FreezeResponse, InfoRequest, InfoResponse, ListGroupsRequest,
    ListGroupsResponse, ListServicesRequest, ListServicesResponse, ListUsersRequest,
    ListUsersResponse, MetricsRequest, MetricsResponse, ReseedRequest, ReseedResponse,
    ResumedRequest, ResumedResponse, ServiceLogsRequest, ServiceLogsResponse, SetTimeRequest,
    SetTimeResponse, ShutdownRequest, ShutdownResponse, ThawRequest, ThawResponse,
    system_server::System,
};
use tokio::time::MissedTickBehavior;
use tonic::{Request, Response, Status};

use self::request::Control;
use super::{
    blocking::{BlockingStream, Deadline, Sink, blocking, blocking_stream, live_stream, within},
    calls::{answers, calls, unary},
    status::Failure,
};
use crate::system::{
    accounts::{self, Account},
    clock,
    create::{self, NewGroup, NewUser},
    entropy, freeze,
    generation::Generation,
    info, metrics,
    services::{self, LogReader, Pattern, UnitName},
    shutdown,
};

/// Users or groups in one message.
const PAGE: usize = 512;

/// The guest itself, for one user.
#[derive(Debug)]
pub(crate) struct SystemService {
    account: Arc<Account>,
    roster: Arc<Path>,
    generation: Generation,
}

impl SystemService {
    /// The account is the one that the worker has become; `roster` is where the listener keeps a file for each worker.
    pub(crate) fn new(account: Arc<Account>, roster: &Path, generation: Generation) -> Self {
        Self {
            account,
            roster: roster.into(),
            generation,
        }
    }
}

calls! {
    SystemService, "guestline.v1.System",
    unary "Info" => info,
    answers "ListUsers" => list_users,
    answers "ListGroups" => list_groups,
    unary "CreateUser" => create_user,
    unary "CreateGroup" => create_group,
    unary "SetTime" => set_time,
    unary "Reseed" => reseed,
    unary "Resumed" => resumed,
    unary "Freeze" => freeze,
    unary "Thaw" => thaw,
    unary "ListServices" => list_services,
    unary "CreateService" => create_service,
    unary "ControlService" => control_service,
    answers "ServiceLogs" => service_logs,
    answers "Metrics" => metrics,
    unary "Shutdown" => shutdown,
}

#[tonic::async_trait]
impl System for SystemService {
    type ListUsersStream = BlockingStream<ListUsersResponse>;
    type ListGroupsStream = BlockingStream<ListGroupsResponse>;
    type ServiceLogsStream = BlockingStream<ServiceLogsResponse>;
    type MetricsStream = BlockingStream<MetricsResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let info = blocking(Deadline::of(&request), || Ok(info::info())).await?;
        let generation = self.generation.current();
        Ok(Response::new(answer::info(info, &self.account, generation)))
    }

    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<Self::ListUsersStream>, Status> {
        let stream = blocking_stream(Deadline::of(&request), |sink| {
            let users = accounts::users()?;
            let users = users.iter().map(answer::user).collect();
            send_pages(sink, users, |users| ListUsersResponse { users });
            Ok(())
        });
        Ok(Response::new(stream?))
    }

    async fn list_groups(
        &self,
        request: Request<ListGroupsRequest>,
    ) -> Result<Response<Self::ListGroupsStream>, Status> {
        let stream = blocking_stream(Deadline::of(&request), |sink| {
            let groups = accounts::groups()?;
            let groups = groups.iter().map(answer::group).collect();
            send_pages(sink, groups, |groups| ListGroupsResponse { groups });
            Ok(())
        });
        Ok(Response::new(stream?))
    }

    async fn create_user(
        &self,
        request: Request<CreateUserRequest>,
    ) -> Result<Response<CreateUserResponse>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let new = NewUser {
            name: request.name,
            uid: request.uid,
            groups: request.groups,
            home: request.home,
            shell: request.shell,
            system: request.system,
            comment: request.comment,
        };
        let user = blocking(deadline, move || {
            Ok(answer::user(&create::create_user(&new)?))
        })
        .await?;
        Ok(Response::new(CreateUserResponse { user: Some(user) }))
    }

    async fn create_group(
        &self,
        request: Request<CreateGroupRequest>,
    ) -> Result<Response<CreateGroupResponse>, Status> {
        let deadline = Deadline::of(&request);
        let CreateGroupRequest { name, gid, system } = request.into_inner();
        let new = NewGroup { name, gid, system };
        let group = blocking(deadline, move || {
            Ok(answer::group(&create::create_group(&new)?))
        })
        .await?;
        Ok(Response::new(CreateGroupResponse { group: Some(group) }))
    }

    async fn set_time(
        &self,
        request: Request<SetTimeRequest>,
    ) -> Result<Response<SetTimeResponse>, Status> {
        let time = request::time(request.into_inner())?;
        // At once: waiting for a thread would make it late.
        let step = clock::set(time).map_err(Failure::from)?;
        Ok(Response::new(SetTimeResponse {
            step: answer::step(step),
        }))
    }

    async fn reseed(
        &self,
        request: Request<ReseedRequest>,
    ) -> Result<Response<ReseedResponse>, Status> {
        let deadline = Deadline::of(&request);
        let entropy = request.into_inner().entropy;
        blocking(deadline, move || Ok(entropy::reseed(&entropy)?)).await?;
        Ok(Response::new(ReseedResponse {}))
    }

    async fn resumed(
        &self,
        request: Request<ResumedRequest>,
    ) -> Result<Response<ResumedResponse>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let time = request::resumed_time(request.time)?;
        let entropy = request.entropy;
        // Before anything is changed.
        entropy::check(&entropy).map_err(Failure::from)?;
        let step = blocking(deadline, move || {
            let step = clock::set(time)?;
            entropy::reseed(&entropy)?;
            Ok(step)
        })
        .await?;
        let generation = self.generation.next().await.ok_or_else(|| {
            let text = "the listener is being restarted; the clock and the random pool are set";
            Failure::refused(ErrorReason::Draining, "resumed", text)
        })?;
        Ok(Response::new(ResumedResponse {
            generation,
            step: answer::step(step),
        }))
    }

    async fn freeze(
        &self,
        request: Request<FreezeRequest>,
    ) -> Result<Response<FreezeResponse>, Status> {
        let deadline = Deadline::of(&request);
        let limit = request::freeze_limit(request.into_inner())?;
        let points = blocking(deadline, move || Ok(freeze::freeze(limit)?)).await?;
        Ok(Response::new(FreezeResponse {
            mount_points: answer::paths(points),
        }))
    }

    async fn thaw(&self, request: Request<ThawRequest>) -> Result<Response<ThawResponse>, Status> {
        let points = blocking(Deadline::of(&request), || Ok(freeze::thaw()?)).await?;
        Ok(Response::new(ThawResponse {
            mount_points: answer::paths(points),
        }))
    }

    async fn list_services(
        &self,
        request: Request<ListServicesRequest>,
    ) -> Result<Response<ListServicesResponse>, Status> {
        let deadline = Deadline::of(&request);
        let pattern = request.into_inner().pattern;
        let listing = async { Ok(services::list(&Pattern::parse(&pattern)?).await?) };
        let services = within(deadline, listing).await?;
        Ok(Response::new(ListServicesResponse {
            services: services.into_iter().map(answer::service).collect(),
        }))
    }

    async fn create_service(
        &self,
        request: Request<CreateServiceRequest>,
    ) -> Result<Response<CreateServiceResponse>, Status> {
        let deadline = Deadline::of(&request);
        let new = request::new_service(request.into_inner())?;
        let service = within(deadline, async { Ok(services::create(new).await?) }).await?;
        Ok(Response::new(CreateServiceResponse {
            service: Some(answer::service(service)),
        }))
    }

    async fn control_service(
        &self,
        request: Request<ControlServiceRequest>,
    ) -> Result<Response<ControlServiceResponse>, Status> {
        let deadline = Deadline::of(&request);
        let request = request.into_inner();
        let control = request::control(request.action())?;
        let name = UnitName::parse(&request.name).map_err(Failure::from)?;
        let done = async {
            Ok(match control {
                Control::Status => services::status(&name).await?,
                Control::Change(action) => services::control(&name, action).await?,
                Control::Remove => services::remove(&name).await?,
            })
        };
        let service = within(deadline, done).await?;
        Ok(Response::new(ControlServiceResponse {
            service: Some(answer::service(service)),
        }))
    }

    async fn service_logs(
        &self,
        request: Request<ServiceLogsRequest>,
    ) -> Result<Response<Self::ServiceLogsStream>, Status> {
        let deadline = Deadline::of(&request);
        let request = request::logs(request.into_inner())?;
        let opening = async { Ok(LogReader::open(&request).await?) };
        let mut reader = within(deadline, opening).await?;
        let stream = live_stream(deadline, |sink| async move {
            while let Some(lines) = reader.next().await? {
                if sink.send(Ok(answer::log_lines(lines))).await.is_err() {
                    break;
                }
            }
            Ok(())
        });
        Ok(Response::new(stream))
    }

    async fn metrics(
        &self,
        request: Request<MetricsRequest>,
    ) -> Result<Response<Self::MetricsStream>, Status> {
        let deadline = Deadline::of(&request);
        let interval = request::interval(request.into_inner())?;
        let roster = Arc::clone(&self.roster);
        let stream = live_stream(deadline, move |sink| async move {
            let mut ticks = tokio::time::interval(interval);
            // A reader that is slow misses samples; it does not get them all at once later.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let roster = Arc::clone(&roster);
                let sample = blocking(deadline, move || Ok(metrics::sample(&roster))).await;
                let last = sample.is_err();
                if sink.send(sample.map(answer::metrics)).await.is_err() || last {
                    return Ok(());
                }
            }
        });
        Ok(Response::new(stream))
    }

    async fn shutdown(
        &self,
        request: Request<ShutdownRequest>,
    ) -> Result<Response<ShutdownResponse>, Status> {
        let deadline = Deadline::of(&request);
        let mode = request::shutdown(request.into_inner().mode())?;
        within(deadline, async { Ok(shutdown::shutdown(mode).await?) }).await?;
        Ok(Response::new(ShutdownResponse {}))
    }
}

/// Ends early when the client is gone.
fn send_pages<T: Clone, R>(sink: &Sink<R>, all: Vec<T>, page: impl Fn(Vec<T>) -> R) {
    for items in all.chunks(PAGE) {
        if sink.send(page(items.to_vec())).is_err() {
            break;
        }
    }
}
