//! Transcoding of a video: queued, begun, one rendition after another, and what is told of it.
//!
//! Not its job: media. A rendition is a name and a moment at which it ends.

use super::World;
use super::agenda::{Stage, Step};
use super::video::{LADDER, Rendition, RenditionStatus, VideoStatus};
use crate::{Encoding, ViewableWebhooks};

/// Nominal seconds from the end of a recording to its `pending` webhook. The lower bound is above
/// the delay of the stream's `recording:false`, so that this one usually comes first.
const QUEUED_S: (f64, f64) = (0.6, 1.5);
/// Nominal seconds in the queue.
const BEGUN_S: (f64, f64) = (1.0, 3.0);
/// Nominal seconds to the first rendition.
const FIRST_RENDITION_S: (f64, f64) = (5.0, 10.0);
/// Nominal seconds between renditions.
const NEXT_RENDITION_S: (f64, f64) = (2.0, 5.0);

impl World {
    /// Puts a new video into the queue.
    pub(super) fn transcoding_is_queued(&mut self, video: i64) {
        self.plan_stage(video, QUEUED_S, Stage::Queued);
    }

    /// Does one stage, if the video still exists.
    pub(super) fn transcodes(&mut self, id: i64, stage: Stage) {
        if !self.videos.contains_key(&id) {
            return;
        }
        match stage {
            Stage::Queued => {
                self.tell_video(id);
                self.plan_stage(id, BEGUN_S, Stage::Begun);
            }
            Stage::Begun => {
                self.renditions_begin(id);
                self.plan_stage(id, FIRST_RENDITION_S, Stage::RenditionEnds(0));
            }
            Stage::RenditionEnds(index) => self.rendition_ends(id, index),
        }
    }

    /// Plans a stage between two nominal delays.
    fn plan_stage(&mut self, video: i64, (low, high): (f64, f64), stage: Stage) {
        self.plan_between(low, high, Step::Transcodes { video, stage });
    }

    /// Adds all renditions as `processing`.
    fn renditions_begin(&mut self, id: i64) {
        let first = self.next_rendition;
        let now = self.now;
        let Some(video) = self.videos.get_mut(&id) else { return };
        video.renditions = (first..)
            .zip(LADDER)
            .map(|(id, (name, width, height))| Rendition {
                id,
                name,
                width,
                height,
                status: RenditionStatus::Processing,
            })
            .collect();
        video.updated_at = now;
        self.next_rendition = video.renditions.last().map_or(first, |last| last.id + 1);
    }

    /// Ends one rendition and tells what the switches want told.
    fn rendition_ends(&mut self, id: i64, index: usize) {
        let encoding = match self.behaviour.encoding {
            _ if self.is_full() => Encoding::RenditionFails,
            Encoding::Varied if id % 20 == 3 => Encoding::Fails,
            Encoding::Varied if id % 10 == 7 => Encoding::RenditionFails,
            Encoding::Completes | Encoding::Varied => Encoding::Completes,
            Encoding::Waits => {
                return self.plan_stage(id, NEXT_RENDITION_S, Stage::RenditionEnds(index));
            }
            encoding @ (Encoding::RenditionFails | Encoding::Fails) => encoding,
        };
        let now = self.now;
        let Some(video) = self.videos.get_mut(&id) else { return };
        video.updated_at = now;
        if encoding == Encoding::Fails {
            video.status = VideoStatus::Error;
            video.error = Some("Encoding has failed");
            video.renditions.iter_mut().for_each(|one| one.status = RenditionStatus::Error);
            self.tell_video(id);
            return;
        }
        let is_last = index + 1 >= video.renditions.len();
        let fails = is_last && encoding == Encoding::RenditionFails;
        if let Some(rendition) = video.renditions.get_mut(index) {
            let status = if fails { RenditionStatus::Error } else { RenditionStatus::Complete };
            rendition.status = status;
        }
        video.status = if is_last && !fails { VideoStatus::Ready } else { VideoStatus::Viewable };
        video.error = fails.then_some("The storage limit has been exceeded");
        let is_told = match self.behaviour.viewable {
            ViewableWebhooks::Once => index == 0 || is_last,
            ViewableWebhooks::PerRendition => true,
            ViewableWebhooks::Skipped => is_last,
        };
        if is_told {
            self.tell_video(id);
        }
        if !is_last {
            self.plan_stage(id, NEXT_RENDITION_S, Stage::RenditionEnds(index + 1));
        }
    }
}
