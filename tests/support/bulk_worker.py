"""A process that predicts a folder with the formula: bulk_worker.py FOLDER OUTPUT PAUSE."""

import sys
import time

import emoser.bulk
from emoser.bulk import BulkJob, predict_folder
from support.fakes import FormulaRuntime, formula_classifier


class SlowRuntime(FormulaRuntime):
    """Takes its time, so that there is one to be killed in."""

    def infer(self, recordings):
        time.sleep(float(sys.argv[3]))
        return super().infer(recordings)


if __name__ == "__main__":
    emoser.bulk.open_job_classifier = lambda job: formula_classifier(SlowRuntime())
    print(predict_folder(BulkJob(sys.argv[1], sys.argv[2])))
