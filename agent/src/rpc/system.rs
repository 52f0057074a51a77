//! guestline.v1.System: what the guest is, and its accounts. The rest of the contract is not in this agent yet.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use guestline_proto::v1 as proto;
use guestline_proto::v1::{
    CreateGroupRequest, CreateGroupResponse, CreateUserRequest, CreateUserResponse, Disk,
    ErrorReason, Group, Identity, InfoRequest, InfoResponse, ListGroupsRequest, ListGroupsResponse,
    ListUsersRequest, ListUsersResponse, Memory, User, system_server::System,
};
use std::os::unix::ffi::OsStrExt;
use tokio_stream::Empty;
use tonic::{Request, Response, Status};

use super::{
    blocking::{BlockingStream, Deadline, Sink, blocking, blocking_stream},
    not_yet,
    status::Failure,
};
use crate::system::{
    accounts::{self, Account, AccountError},
    create::{self, CreateError, NewGroup, NewUser},
    info,
};

/// Users or groups in one message.
const PAGE: usize = 512;

/// The guest itself, for one user.
#[derive(Debug)]
pub(crate) struct SystemService {
    account: Arc<Account>,
}

impl SystemService {
    pub(crate) fn new(account: Arc<Account>) -> Self {
        Self { account }
    }
}

type Nothing<T> = Empty<Result<T, Status>>;

#[tonic::async_trait]
impl System for SystemService {
    type ListUsersStream = BlockingStream<ListUsersResponse>;
    type ListGroupsStream = BlockingStream<ListGroupsResponse>;
    type ServiceLogsStream = Nothing<proto::ServiceLogsResponse>;
    type MetricsStream = Nothing<proto::MetricsResponse>;

    async fn info(&self, request: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let info = blocking(Deadline::of(&request), || Ok(info::info())).await?;
        Ok(Response::new(info_response(info, &self.account)))
    }

    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<Self::ListUsersStream>, Status> {
        let stream = blocking_stream(Deadline::of(&request), |sink| {
            let users = accounts::users()?;
            let users = users.iter().map(user_message).collect();
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
            let groups = groups.iter().map(group_message).collect();
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
            Ok(user_message(&create::create_user(&new)?))
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
            Ok(group_message(&create::create_group(&new)?))
        })
        .await?;
        Ok(Response::new(CreateGroupResponse { group: Some(group) }))
    }

    async fn set_time(
        &self,
        _: Request<proto::SetTimeRequest>,
    ) -> Result<Response<proto::SetTimeResponse>, Status> {
        Err(not_yet("set time"))
    }

    async fn reseed(
        &self,
        _: Request<proto::ReseedRequest>,
    ) -> Result<Response<proto::ReseedResponse>, Status> {
        Err(not_yet("reseed"))
    }

    async fn resumed(
        &self,
        _: Request<proto::ResumedRequest>,
    ) -> Result<Response<proto::ResumedResponse>, Status> {
        Err(not_yet("resumed"))
    }

    async fn freeze(
        &self,
        _: Request<proto::FreezeRequest>,
    ) -> Result<Response<proto::FreezeResponse>, Status> {
        Err(not_yet("freeze"))
    }

    async fn thaw(
        &self,
        _: Request<proto::ThawRequest>,
    ) -> Result<Response<proto::ThawResponse>, Status> {
        Err(not_yet("thaw"))
    }

    async fn list_services(
        &self,
        _: Request<proto::ListServicesRequest>,
    ) -> Result<Response<proto::ListServicesResponse>, Status> {
        Err(not_yet("list services"))
    }

    async fn create_service(
        &self,
        _: Request<proto::CreateServiceRequest>,
    ) -> Result<Response<proto::CreateServiceResponse>, Status> {
        Err(not_yet("create service"))
    }

    async fn control_service(
        &self,
        _: Request<proto::ControlServiceRequest>,
    ) -> Result<Response<proto::ControlServiceResponse>, Status> {
        Err(not_yet("control service"))
    }

    async fn service_logs(
        &self,
        _: Request<proto::ServiceLogsRequest>,
    ) -> Result<Response<Self::ServiceLogsStream>, Status> {
        Err(not_yet("service logs"))
    }

    async fn metrics(
        &self,
        _: Request<proto::MetricsRequest>,
    ) -> Result<Response<Self::MetricsStream>, Status> {
        Err(not_yet("metrics"))
    }

    async fn shutdown(
        &self,
        _: Request<proto::ShutdownRequest>,
    ) -> Result<Response<proto::ShutdownResponse>, Status> {
        Err(not_yet("shutdown"))
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

fn info_response(info: info::Info, account: &Account) -> InfoResponse {
    let disk = |disk: info::Disk| Disk {
        mount_point: disk.mount_point.into(),
        device: disk.device.into(),
        file_system: disk.file_system,
        total: disk.total,
        available: disk.available,
    };
    InfoResponse {
        agent_version: env!("CARGO_PKG_VERSION").into(),
        protocol: 1,
        hostname: info.hostname,
        kernel: info.kernel,
        architecture: info.architecture,
        operating_system: info.operating_system,
        boot_id: info.boot_id,
        generation: 0,
        uptime: duration(info.uptime),
        now: Some(SystemTime::now().into()),
        load_1: info.load[0],
        load_5: info.load[1],
        load_15: info.load[2],
        cpus: info.cpus,
        memory: Some(Memory {
            total: info.memory.total,
            free: info.memory.free,
            available: info.memory.available,
            swap_total: info.memory.swap_total,
            swap_free: info.memory.swap_free,
        }),
        disks: info.disks.into_iter().map(disk).collect(),
        identity: Some(identity(account)),
        capabilities: info.capabilities,
    }
}

fn identity(account: &Account) -> Identity {
    Identity {
        user: account.name.clone().into(),
        uid: account.uid,
        gid: account.gid,
        groups: account.groups.clone(),
        home: bytes(account.home.as_os_str()),
        shell: bytes(account.shell.as_os_str()),
    }
}

fn duration(duration: Duration) -> Option<prost_types::Duration> {
    duration.try_into().ok()
}

fn bytes(text: &std::ffi::OsStr) -> bytes::Bytes {
    bytes::Bytes::copy_from_slice(text.as_bytes())
}

fn user_message(user: &accounts::User) -> User {
    User {
        name: bytes(&user.name),
        uid: user.uid,
        gid: user.gid,
        comment: bytes(&user.comment),
        home: bytes(user.home.as_os_str()),
        shell: bytes(user.shell.as_os_str()),
    }
}

fn group_message(group: &accounts::Group) -> Group {
    Group {
        name: bytes(&group.name),
        gid: group.gid,
        members: group.members.iter().map(|member| bytes(member)).collect(),
    }
}

impl From<AccountError> for Failure {
    fn from(error: AccountError) -> Self {
        Failure::refused(ErrorReason::Io, "read accounts", error.to_string())
    }
}

impl From<CreateError> for Failure {
    fn from(error: CreateError) -> Self {
        let operation = "create account";
        let text = error.to_string();
        match error {
            CreateError::Invalid(_) => Failure::invalid(operation, text),
            CreateError::Exists(_) => Failure::refused(ErrorReason::AlreadyExists, operation, text),
            CreateError::NoGroup(_) => Failure::refused(ErrorReason::NoSuchUser, operation, text),
            CreateError::Denied { path, errno } => Failure::kernel("open for writing", path, errno),
            CreateError::NoTool(..) => Failure::refused(ErrorReason::Unsupported, operation, text),
            CreateError::Run { tool, errno } => Failure::kernel("run", tool, errno),
            CreateError::Tool { .. } => Failure::refused(ErrorReason::Errno, operation, text),
            CreateError::Accounts(error) => error.into(),
        }
    }
}
