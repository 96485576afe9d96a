"""A process that predicts a folder with the formula model: bulk_worker.py FOLDER OUTPUT PAUSE."""

import sys
import time

import emoser.bulk
from emoser.bulk import BulkJob, predict_folder
from support.fakes import FormulaRuntime, formula_classifier


class SlowRuntime(FormulaRuntime):
    """Sleeps before each batch, so that the process can be killed meanwhile."""

    def infer(self, recordings):
        time.sleep(float(sys.argv[3]))
        return super().infer(recordings)


if __name__ == "__main__":
    emoser.bulk.open_job_classifier = lambda job: formula_classifier(SlowRuntime())
    print(predict_folder(BulkJob(sys.argv[1], sys.argv[2])))
