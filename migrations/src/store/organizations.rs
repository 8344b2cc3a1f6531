//! Organizations and their projects: further methods of [`Identity`].

use sea_orm::sea_query::{OnConflict, Query};
use sea_orm::{ColumnTrait, EntityTrait, IntoActiveModel, QueryFilter, QueryOrder, Select};
use tenant_controlplane::id::{OrganizationId, ProjectId, UserId};
use tenant_controlplane::name::OrganizationName;
use uuid::Uuid;

use super::audit_chain::Entry;
use super::identity::Identity;
use super::intent::Intent;
use super::{quotas, spares};
use crate::changes::{Change, ChangeKind};
use crate::codec;
use crate::db::Tx;
use crate::entity::{member, organization, project};
use crate::error::StoreError;
use crate::rows::organization::{Member, NewProject, Organization, Project, Role};
use crate::rows::quota::Resource;
use crate::rows::{self, Actor};

/// The name of what everyone has from the start.
const DEFAULT: &str = "default";

impl Identity<'_> {
    /// Makes an organization with a project `default`; the person becomes its owner. Only the person's own organizations keep a name
    /// from being used: whether another tenant has it is not told.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when another organization of the person has the name, [`StoreError::Quota`] when they own as many as they
    /// may.
    pub async fn create_organization(
        self,
        owner: UserId,
        name: OrganizationName,
        display_name: &str,
        actor: Actor,
    ) -> Result<Organization, StoreError> {
        let mut tx = self.0.begin().await?;
        quotas::require_of_person(&tx, owner, Resource::Organizations).await?;
        if own(owner).filter(organization::Column::Name.eq(name.as_str())).one(&tx).await?.is_some() {
            let taken = format!("the name `{name}` is already used by another organization of yours");
            return Err(StoreError::conflict("organization", taken));
        }
        let row = add_organization(&mut tx, name.as_str(), display_name).await?;
        join(&mut tx, &row, (owner.uuid(), Role::Owner)).await?;
        let target = OrganizationId::from_uuid(row.id).to_string();
        let (action, detail) = ("organization.create", row.name.as_str());
        Intent { organization: row.id, cluster: None, action, target: &target, detail, actor }.record(&tx).await?;
        tx.commit().await?;
        Organization::try_from(row)
    }

    /// The installation's first organization, which its set-up made; `None` before that.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn first_organization(self) -> Result<Option<OrganizationId>, StoreError> {
        // Ids begin with the time of their making (RFC 9562, version 7); the platform's own organization is none of anybody's.
        let people = organization::Entity::find().filter(organization::Column::Id.ne(spares::OWN));
        let first = people.order_by_asc(organization::Column::Id).one(self.0.db()).await?;
        Ok(first.map(|row| OrganizationId::from_uuid(row.id)))
    }

    /// The organizations with this name, the oldest first; for the operator. Tenants may use the same name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn organizations_named(self, name: &str) -> Result<Vec<Organization>, StoreError> {
        let query = organization::Entity::find().filter(organization::Column::Name.eq(name));
        let query = query.filter(organization::Column::Id.ne(spares::OWN));
        rows::all(query.order_by_asc(organization::Column::Id).all(self.0.db()).await?)
    }

    /// All organizations of people, the oldest first; for the operator.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn all_organizations(self) -> Result<Vec<Organization>, StoreError> {
        let query = organization::Entity::find().filter(organization::Column::Id.ne(spares::OWN));
        rows::all(query.order_by_asc(organization::Column::Id).all(self.0.db()).await?)
    }

    /// Makes a person a member, or changes the role of one.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] without such an organization.
    pub async fn put_member(self, place: Member, actor: Actor) -> Result<(), StoreError> {
        let mut tx = self.0.begin().await?;
        let organization = organization::Entity::find_by_id(place.organization.uuid()).one(&tx).await?;
        let organization = organization.ok_or(StoreError::missing("organization"))?;
        join(&mut tx, &organization, (place.user.uuid(), place.role)).await?;
        let (target, action) = (place.user.to_string(), "member.set");
        let role = place.role.to_string();
        Intent { organization: organization.id, cluster: None, action, target: &target, detail: &role, actor }
            .record(&tx)
            .await?;
        tx.commit().await
    }

    /// The organizations of a person with their role there, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn organizations_of(self, user: UserId) -> Result<Vec<(Organization, Role)>, StoreError> {
        let places = member::Entity::find().filter(member::Column::User.eq(user.uuid()));
        let places = places.order_by_asc(member::Column::Organization).all(self.0.db()).await?;
        let ids = places.iter().map(|place| place.organization);
        let known = organization::Entity::find().filter(organization::Column::Id.is_in(ids));
        let known = known.order_by_asc(organization::Column::Id).all(self.0.db()).await?;
        let read = |row: organization::Model| {
            let place = places.iter().find(|place| place.organization == row.id);
            let role = codec::word("role", place.map_or("", |place| place.role.as_str()))?;
            Ok((Organization::try_from(row)?, role))
        };
        known.into_iter().map(read).collect()
    }

    /// A person's role in an organization; `None` for who is no member.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn role_in(self, user: UserId, organization: OrganizationId) -> Result<Option<Role>, StoreError> {
        let place = member::Entity::find_by_id((organization.uuid(), user.uuid())).one(self.0.db()).await?;
        place.map(|place| codec::word("role", &place.role)).transpose()
    }

    /// The projects of an organization, the oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn projects(self, organization: OrganizationId) -> Result<Vec<Project>, StoreError> {
        let query = project::Entity::find().filter(project::Column::Organization.eq(organization.uuid()));
        rows::all(query.order_by_asc(project::Column::Id).all(self.0.db()).await?)
    }

    /// One project of an organization, by its id or its name.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn project(self, organization: OrganizationId, id_or_name: &str) -> Result<Project, StoreError> {
        if let Ok(id) = id_or_name.parse() {
            return self.project_of(organization, id).await;
        }
        let query = project::Entity::find().filter(project::Column::Organization.eq(organization.uuid()));
        rows::one("project", query.filter(project::Column::Name.eq(id_or_name)).one(self.0.db()).await?)
    }

    /// One project of an organization.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], also for another organization's.
    pub async fn project_of(self, organization: OrganizationId, id: ProjectId) -> Result<Project, StoreError> {
        let query = project::Entity::find_by_id(id.uuid());
        let query = query.filter(project::Column::Organization.eq(organization.uuid()));
        rows::one("project", query.one(self.0.db()).await?)
    }

    /// Makes a project.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when the name is taken in its organization, [`StoreError::Quota`] when that has as many as it may.
    pub async fn create_project(self, new: NewProject) -> Result<Project, StoreError> {
        let mut tx = self.0.begin().await?;
        let organization = new.organization.uuid();
        quotas::require(&tx, organization, Resource::Projects, 1).await?;
        let row = add_project(&mut tx, organization, (new.name.as_str(), &new.display_name)).await?;
        let target = ProjectId::from_uuid(row.id).to_string();
        let (action, detail, actor) = ("project.create", row.name.as_str(), new.actor);
        Intent { organization, cluster: None, action, target: &target, detail, actor }.record(&tx).await?;
        tx.commit().await?;
        Project::try_from(row)
    }
}

/// The installation's first organization, `default` with its project, made if it is not there. Tenants may call theirs the same later,
/// so it is the oldest.
pub(super) async fn ensure_default(tx: &mut Tx) -> Result<organization::Model, StoreError> {
    let query = organization::Entity::find().filter(organization::Column::Name.eq(DEFAULT));
    match query.order_by_asc(organization::Column::Id).one(tx).await? {
        Some(row) => Ok(row),
        None => {
            let row = add_organization(tx, DEFAULT, "Default").await?;
            tx.audit(Entry {
                organization: Some(row.id),
                actor: Actor::System.to_string(),
                action: "organization.create".to_owned(),
                target: OrganizationId::from_uuid(row.id).to_string(),
                detail: DEFAULT.to_owned(),
                address: None,
            });
            Ok(row)
        }
    }
}

/// The organizations a person is a member of.
fn own(user: UserId) -> Select<organization::Entity> {
    let mut places = Query::select();
    places.column(member::Column::Organization).from(member::Entity);
    places.and_where(member::Column::User.eq(user.uuid()));
    organization::Entity::find().filter(organization::Column::Id.in_subquery(places))
}

/// Makes a person a member, or changes the role of one.
pub(super) async fn join(
    tx: &mut Tx,
    organization: &organization::Model,
    (user, role): (Uuid, Role),
) -> Result<(), StoreError> {
    let row = member::Model { organization: organization.id, user, role: role.to_string() };
    let there = [member::Column::Organization, member::Column::User];
    let there = OnConflict::columns(there).update_column(member::Column::Role).to_owned();
    member::Entity::insert(row.into_active_model()).on_conflict(there).exec_without_returning(tx).await?;
    tx.publish(Change::of(ChangeKind::Organization, organization.id).within(organization.id, None));
    Ok(())
}

async fn add_organization(tx: &mut Tx, name: &str, display_name: &str) -> Result<organization::Model, StoreError> {
    let row = organization::Model {
        id: Uuid::now_v7(),
        name: name.to_owned(),
        display_name: display_name.to_owned(),
        created_at: codec::millis(codec::now()),
    };
    tx.add(row.clone()).await?;
    tx.begin_audit(row.id);
    add_project(tx, row.id, (DEFAULT, "Default")).await?;
    tx.publish(Change::of(ChangeKind::Organization, row.id).within(row.id, None));
    Ok(row)
}

async fn add_project(
    tx: &mut Tx,
    organization: Uuid,
    (name, display_name): (&str, &str),
) -> Result<project::Model, StoreError> {
    let row = project::Model {
        id: Uuid::now_v7(),
        organization,
        name: name.to_owned(),
        display_name: display_name.to_owned(),
        created_at: codec::millis(codec::now()),
    };
    let taken = || format!("the name `{name}` is already used by another project of this organization");
    tx.add(row.clone()).await.map_err(|error| StoreError::taken(error, "project", taken))?;
    tx.publish(Change::of(ChangeKind::Project, row.id).within(organization, None));
    Ok(row)
}
