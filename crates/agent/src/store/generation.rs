//! The highest generation that this agent has obeyed. A controller with a smaller one has been replaced.

use super::{Store, StoreError};

impl Store {
    /// The highest generation seen.
    pub async fn generation(&self) -> Result<u64, StoreError> {
        let highest: i64 = sqlx::query_scalar("SELECT highest FROM generation").fetch_one(&self.readers).await?;
        Ok(highest.cast_unsigned())
    }

    /// Takes a request's generation in; answers the highest one seen, which is another if the request is stale.
    pub async fn generation_raise(&self, to: u64) -> Result<u64, StoreError> {
        let mut transaction = self.begin().await?;
        sqlx::query("UPDATE generation SET highest = ?1 WHERE highest < ?1")
            .bind(i64::try_from(to).unwrap_or(i64::MAX))
            .execute(&mut *transaction)
            .await?;
        let highest: i64 =
            sqlx::query_scalar("SELECT highest FROM generation").fetch_one(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(highest.cast_unsigned())
    }
}
